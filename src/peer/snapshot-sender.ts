import type { ClientRequest, IncomingMessage } from "node:http";
import type { Timer } from "../base/clock.ts";
import { humanBytes } from "../base/table.ts";
import type { Url } from "../config/values/url.ts";
import { formatId } from "../membership/member.ts";
import { Message } from "../proto/raftpb.ts";
import type { DatabaseImage } from "../server/contract/network.ts";
import type { PeerContext } from "./context.ts";
import { localHeaders } from "./headers.ts";
import { type PeerResponse, readResponse } from "./http.ts";
import type { PeerStatus } from "./peer-status.ts";
import { postProblem } from "./post.ts";
import type { UrlPicker } from "./url-picker.ts";

const PATH = "/raft/snapshot";
/** The transfer is aborted when the peer takes nothing for this long. */
const STALL_MS_MAX = 60_000;
/** After the last byte the peer makes the database durable, which may be slow. */
const ANSWER_MS_MAX = 10 * 60_000;
const MAX_PIECE_BYTES = 64 * 1024;

/**
 * Sends a MsgSnap and the database after it in one request: the message's length in eight bytes, big-endian, the
 * message, the database. Reads the database only as fast as the peer takes it. Source: etcd's
 * rafthttp/snapshot_sender.go.
 */
export class SnapshotSender {
  readonly #peerId: bigint;
  readonly #context: PeerContext;
  readonly #status: PeerStatus;
  readonly #picker: UrlPicker;
  readonly #underWay = new Set<ClientRequest>();
  #stopped = false;

  constructor(peerId: bigint, context: PeerContext, status: PeerStatus, picker: UrlPicker) {
    this.#peerId = peerId;
    this.#context = context;
    this.#status = status;
    this.#picker = picker;
  }

  /** Resolves when the outcome is reported and the database closed. Never rejects. */
  async send(message: Message, database: DatabaseImage): Promise<void> {
    const { clock, logger, metrics } = this.#context;
    const peer = formatId(this.#peerId);
    const head = encodeHead(message);
    const bytes = head.length + database.sizeBytes;
    const startMs = clock.nowMs();
    const fields = {
      "snapshot-index": message.snapshot?.metadata?.index ?? 0,
      "remote-peer-id": peer,
      bytes,
      size: humanBytes(bytes),
    };
    logger.info("sending database snapshot", fields);
    metrics.snapshotsSending.add(peer, 1);
    const url = this.#picker.pick();
    const problem = await this.#post(url, head, database).catch((error: Error) => error.message);
    metrics.snapshotsSending.add(peer, -1);
    database.close();
    this.#context.reportSnapshot(this.#peerId, problem === undefined);
    if (problem === undefined) {
      this.#status.activate();
      logger.info("sent database snapshot", fields);
      metrics.sentBytes.add(peer, bytes);
      metrics.snapshotsSent.add(peer, 1);
      metrics.snapshotSendSeconds.observe(peer, (clock.nowMs() - startMs) / 1000);
      return;
    }
    logger.warn("failed to send database snapshot", { ...fields, error: problem });
    this.#picker.unreachable(url);
    this.#status.deactivate("sendMsgSnap", "post", problem);
    this.#context.reportUnreachable(this.#peerId);
    metrics.sendFailures.add(peer, 1);
    metrics.snapshotSendFailures.add(peer, 1);
  }

  stop(): void {
    this.#stopped = true;
    for (const request of this.#underWay) request.destroy(new Error("stopped"));
  }

  async #post(url: Url, head: Buffer, database: DatabaseImage): Promise<string | undefined> {
    if (this.#stopped) return "stopped";
    const headers = { "Content-Type": "application/octet-stream", ...localHeaders(this.#context.local) };
    const request = this.#context.http.begin({ method: "POST", url, path: PATH, headers });
    this.#underWay.add(request);
    const answer = new Promise<PeerResponse>((resolve, reject) => {
      request.on("error", reject);
      request.on("response", (response: IncomingMessage) => readResponse(response, resolve, reject));
    });
    // A refusing peer answers before it has read everything; that is checked below.
    let answered = false;
    const over = (): void => {
      answered = true;
    };
    answer.then(over, over);
    try {
      await this.#write(request, head, () => answered);
      for await (const piece of database.chunks()) {
        if (answered) break;
        for (let at = 0; at < piece.length && !answered; at += MAX_PIECE_BYTES) {
          await this.#write(request, piece.subarray(at, at + MAX_PIECE_BYTES), () => answered);
        }
      }
      if (!answered) request.end();
      const timer = this.#context.clock.after(ANSWER_MS_MAX, () => timedOut(request, "answer", ANSWER_MS_MAX));
      const response = await answer.finally(() => timer.cancel());
      return postProblem(this.#context, this.#peerId, url, PATH, response);
    } finally {
      this.#underWay.delete(request);
      // A partial request must never count as complete.
      if (!request.writableFinished) request.destroy();
    }
  }

  /** Resolves when more can be written, or the exchange is over. */
  async #write(request: ClientRequest, bytes: Uint8Array, isOver: () => boolean): Promise<void> {
    if (request.destroyed || isOver() || request.write(bytes)) return;
    await new Promise<void>((resolve) => {
      const timer: Timer = this.#context.clock.after(STALL_MS_MAX, () => timedOut(request, "write", STALL_MS_MAX));
      const go = (): void => {
        timer.cancel();
        for (const event of ["drain", "close", "response"]) request.off(event, go);
        resolve();
      };
      for (const event of ["drain", "close", "response"]) request.on(event, go);
    });
  }
}

function encodeHead(message: Message): Buffer {
  const body = Message.encode(message);
  const length = Buffer.alloc(8);
  length.writeBigUInt64BE(BigInt(body.length));
  return Buffer.concat([length, body]);
}

const timedOut = (request: ClientRequest, what: string, ms: number): void =>
  void request.destroy(new Error(`${what}: i/o timeout after ${ms} ms`));
