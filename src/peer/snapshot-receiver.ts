import type * as http from "node:http";
import { goDuration } from "../base/duration.ts";
import { humanBytes } from "../base/table.ts";
import { formatId } from "../membership/member.ts";
import { Message, MessageType } from "../proto/raftpb.ts";
import type { DatabaseSink } from "../server/contract/network.ts";
import type { ByteBudget } from "./byte-budget.ts";
import { typeName } from "./context.ts";
import { readLength } from "./frame-decoder.ts";
import { PieceReader } from "./piece-reader.ts";
import type { PeerTransport } from "./transport.ts";

/** Limit on the message before the database; only the sink limits the database. etcd's limit. */
const MESSAGE_BYTES_MAX = 64 * 1024 * 1024;
const UNKNOWN_SENDER = "UNKNOWN_SNAPSHOT_SENDER";

/** The answer to the sender. */
export interface SnapshotAnswer {
  readonly status: number;
  readonly text: string;
}

const RECEIVED: SnapshotAnswer = { status: 204, text: "" };

/**
 * Receives a MsgSnap with its database: stores the database as fast as the sink takes it, and delivers the message when
 * it is complete. A sender that is silent for the read timeout is dropped. The message, which is collected in memory,
 * counts towards `posted`. Source: etcd's rafthttp/http.go, snapshotHandler.
 */
export async function receiveSnapshot(
  transport: PeerTransport,
  request: http.IncomingMessage,
  posted: ByteBudget,
): Promise<SnapshotAnswer> {
  const { context, metrics } = transport;
  const { clock, logger, local, readTimeoutMs } = context;
  const startMs = clock.nowMs();
  const pieces = new PieceReader(request, clock, readTimeoutMs);
  const ids = { "local-member-id": formatId(local.id) };
  let message: Message;
  try {
    message = await readMessage(pieces, posted);
  } catch (error) {
    const why = (error as Error).message;
    const fields = { ...ids, "remote-snapshot-sender-id": "0", error: why };
    logger.warn("failed to decode Raft message", fields);
    metrics.receiveFailures.add(request.socket.remoteAddress ?? "@", 1);
    metrics.snapshotReceiveFailures.add(UNKNOWN_SENDER, 1);
    return { status: 400, text: `failed to decode raft message (${why})` };
  }
  const from = formatId(message.from);
  const index = message.snapshot?.metadata?.index ?? 0;
  const about = { ...ids, "remote-snapshot-sender-id": from };
  const refuse = (status: number, text: string): SnapshotAnswer => {
    metrics.snapshotReceiveFailures.add(from, 1);
    return { status, text };
  };
  if (message.type !== MessageType.MsgSnap || message.snapshot?.metadata === undefined) {
    logger.warn("unexpected Raft message type", { ...about, "message-type": typeName(message) });
    return refuse(400, "wrong raft message type");
  }
  if (transport.receiver.isRemoved(message.from)) return refuse(403, "cannot process message from removed member");
  if (message.to !== local.id) return refuse(403, "cannot process message to mismatch member");

  metrics.snapshotsReceiving.add(from, 1);
  const messageBytes = pieces.bytes;
  const said = { ...about, "incoming-snapshot-index": index };
  logger.info("receiving database snapshot", {
    ...said,
    "incoming-snapshot-message-size-bytes": messageBytes,
    "incoming-snapshot-message-size": humanBytes(messageBytes),
  });
  try {
    await store(pieces, transport.receiver.beginSnapshot(message));
  } catch (error) {
    const why = (error as Error).message;
    logger.warn("failed to save incoming database snapshot", { ...said, error: why });
    return refuse(500, `failed to save KV snapshot (${why})`);
  } finally {
    metrics.snapshotsReceiving.add(from, -1);
  }
  const bytes = pieces.bytes - messageBytes;
  const tookMs = clock.nowMs() - startMs;
  metrics.receivedBytes.add(from, pieces.bytes);
  metrics.snapshotsReceived.add(from, 1);
  metrics.snapshotReceiveSeconds.observe(from, tookMs / 1000);
  logger.info("received and saved database snapshot", {
    ...said,
    "incoming-snapshot-size-bytes": bytes,
    "incoming-snapshot-size": humanBytes(bytes),
    "download-took": goDuration(tookMs),
  });
  return RECEIVED;
}

async function readMessage(pieces: PieceReader, posted: ByteBudget): Promise<Message> {
  const length = readLength(await pieces.exactly(8), 0, MESSAGE_BYTES_MAX);
  return Message.decode(await pieces.exactly(length, posted));
}

/** Throws the error of the transfer or the disk; ends the sink in any case. */
async function store(pieces: PieceReader, sink: DatabaseSink): Promise<void> {
  try {
    for (let piece = await pieces.next(); piece !== undefined; piece = await pieces.next()) await sink.write(piece);
  } catch (error) {
    await sink.abort();
    throw error;
  }
  await sink.finish();
}
