import type { Clock } from "../../base/clock.ts";
import { goDuration } from "../../base/duration.ts";
import type { Logger } from "../../base/log.ts";
import { formatId } from "../../membership/member.ts";
import { type Message, MessageType } from "../../proto/raftpb.ts";
import type { ServerMetrics } from "../contract/metrics.ts";
import type { Network } from "../contract/network.ts";
import { describeMessage } from "./describe-message.ts";

/**
 * Raft's outgoing messages: drops redundant ones, diverts snapshots, and detects heartbeats that are sent late. Source:
 * etcd `server/etcdserver/raft.go`, `processMessages`.
 */
export class Outbox {
  readonly #network: Network;
  readonly #isRemoved: (id: bigint) => boolean;
  readonly #sendSnapshot: (message: Message) => void;
  readonly #metrics: ServerMetrics;
  readonly #logger: Logger;
  readonly #clock: Clock;
  readonly #heartbeatMs: number;
  /** Clock time of the last heartbeat to each member. */
  readonly #heartbeats = new Map<bigint, number>();

  constructor(options: {
    network: Network;
    isRemoved: (id: bigint) => boolean;
    sendSnapshot: (message: Message) => void;
    metrics: ServerMetrics;
    logger: Logger;
    clock: Clock;
    heartbeatMs: number;
  }) {
    this.#network = options.network;
    this.#isRemoved = options.isRemoved;
    this.#sendSnapshot = options.sendSnapshot;
    this.#metrics = options.metrics;
    this.#logger = options.logger;
    this.#clock = options.clock;
    this.#heartbeatMs = options.heartbeatMs;
  }

  /** Takes ownership of the array. */
  send(messages: Message[]): void {
    let kept = 0;
    let acknowledged = 0n;
    // From the end: the last acknowledgement of a batch covers the earlier ones.
    for (let i = messages.length - 1; i >= 0; i--) {
      const message = messages[i]!;
      const { type, to } = message;
      if (this.#isRemoved(to)) continue;
      if (type === MessageType.MsgAppResp) {
        if (acknowledged === to) continue;
        acknowledged = to;
      } else if (type === MessageType.MsgSnap) {
        this.#sendSnapshot(message);
        continue;
      } else if (type === MessageType.MsgHeartbeat) this.#observeHeartbeat(to);
      kept++;
      messages[messages.length - kept] = message;
    }
    if (kept === 0) return;
    if (this.#logger.debugEnabled) {
      for (const message of messages.slice(messages.length - kept)) {
        this.#logger.debug("sending Raft message", describeMessage(message));
      }
    }
    this.#network.send(kept === messages.length ? messages : messages.slice(messages.length - kept));
  }

  /** A new leader starts with new intervals. */
  reset(): void {
    this.#heartbeats.clear();
  }

  #observeHeartbeat(to: bigint): void {
    const nowMs = this.#clock.nowMs();
    const sinceMs = this.#heartbeats.get(to);
    this.#heartbeats.set(to, nowMs);
    const expectedMs = 2 * this.#heartbeatMs;
    if (sinceMs === undefined || nowMs - sinceMs <= expectedMs) return;
    this.#metrics.heartbeatSendFailures++;
    this.#logger.warn(
      "leader failed to send out heartbeat on time; took too long, leader is overloaded likely from slow disk",
      {
        to: formatId(to),
        "heartbeat-interval": goDuration(this.#heartbeatMs),
        "expected-duration": goDuration(expectedMs),
        "exceeded-duration": goDuration(nowMs - sinceMs - expectedMs),
      },
    );
  }
}
