import type { Socket } from "node:net";
import type { Url } from "../config/values/url.ts";
import { formatId } from "../membership/member.ts";
import { type Message, MessageType } from "../proto/raftpb.ts";
import type { DatabaseImage } from "../server/contract/network.ts";
import { type PeerContext, typeName } from "./context.ts";
import { PeerStatus } from "./peer-status.ts";
import { Pipeline } from "./pipeline.ts";
import { Prober } from "./prober.ts";
import { SnapshotSender } from "./snapshot-sender.ts";
import { MESSAGE_STREAM, MSG_APP_STREAM, type StreamKind } from "./stream-kind.ts";
import { StreamReader } from "./stream-reader.ts";
import { StreamWriter } from "./stream-writer.ts";
import { UrlPicker } from "./url-picker.ts";

/**
 * Another member and the channels to it: two streams opened by this member, two opened by the peer, single requests
 * while there is no stream, and one request for each snapshot.
 */
export class Peer {
  readonly id: bigint;
  readonly #context: PeerContext;
  readonly #status: PeerStatus;
  readonly #picker: UrlPicker;
  readonly #msgAppWriter: StreamWriter;
  readonly #messageWriter: StreamWriter;
  readonly #readers: readonly StreamReader[];
  readonly #pipeline: Pipeline;
  readonly #snapshots: SnapshotSender;
  readonly #probers: readonly Prober[];
  /** Messages were dropped, and none was accepted since. */
  #isDropping = false;
  /** Messages may be waiting for `flush`. */
  isDirty = false;

  constructor(id: bigint, urls: readonly Url[], context: PeerContext) {
    const { clock, logger, metrics } = context;
    logger.info("starting remote peer", { "remote-peer-id": formatId(id) });
    this.id = id;
    this.#context = context;
    this.#status = new PeerStatus(id, clock, logger, metrics);
    this.#picker = new UrlPicker(urls);
    this.#pipeline = new Pipeline(id, context, this.#status, this.#picker);
    this.#msgAppWriter = new StreamWriter(MSG_APP_STREAM, id, context, this.#status);
    this.#messageWriter = new StreamWriter(MESSAGE_STREAM, id, context, this.#status);
    this.#snapshots = new SnapshotSender(id, context, this.#status, this.#picker);
    this.#readers = [MSG_APP_STREAM, MESSAGE_STREAM].map(
      (kind) => new StreamReader(kind, id, context, this.#status, this.#picker),
    );
    this.#probers = (["ROUND_TRIPPER_SNAPSHOT", "ROUND_TRIPPER_RAFT_MESSAGE"] as const).map(
      (name) => new Prober(name, id, urls, context),
    );
    logger.info("started remote peer", { "remote-peer-id": formatId(id) });
  }

  get activeSince(): number | undefined {
    return this.#status.activeSince;
  }

  /** Queues a message for `flush`, or drops and reports it. */
  push(message: Message): void {
    const channel = this.#pick(message);
    if (channel.push(message)) {
      this.#isDropping = false;
      return;
    }
    this.#context.reportUnreachable(this.id);
    this.#context.metrics.sendFailures.add(formatId(this.id), 1);
    if (this.#isDropping) return;
    this.#isDropping = true;
    this.#context.logger.warn("dropped internal Raft message since sending buffer is full", {
      "message-type": typeName(message),
      "local-member-id": formatId(this.#context.local.id),
      from: formatId(message.from),
      "remote-peer-id": formatId(this.id),
      "remote-peer-name": channel.name,
      "remote-peer-active": this.#status.isActive,
    });
  }

  flush(): void {
    this.#msgAppWriter.flush();
    this.#messageWriter.flush();
    this.#pipeline.flush();
  }

  sendSnapshot(message: Message, database: DatabaseImage): void {
    void this.#snapshots.send(message, database);
  }

  /** Takes over a stream opened by the peer. */
  attach(kind: StreamKind, socket: Socket): void {
    (kind === MSG_APP_STREAM ? this.#msgAppWriter : this.#messageWriter).attach(socket);
  }

  update(urls: readonly Url[]): void {
    this.#picker.update(urls);
    for (const prober of this.#probers) prober.update(urls);
  }

  stop(): void {
    const { logger } = this.#context;
    logger.info("stopping remote peer", { "remote-peer-id": formatId(this.id) });
    for (const prober of this.#probers) prober.stop();
    this.#msgAppWriter.stop();
    this.#messageWriter.stop();
    this.#pipeline.stop();
    this.#snapshots.stop();
    for (const reader of this.#readers) reader.stop();
    this.#status.close();
    logger.info("stopped remote peer", { "remote-peer-id": formatId(this.id) });
  }

  #pick(message: Message): StreamWriter | Pipeline {
    if (message.type === MessageType.MsgApp && this.#msgAppWriter.isWorking) return this.#msgAppWriter;
    return this.#messageWriter.isWorking ? this.#messageWriter : this.#pipeline;
  }
}
