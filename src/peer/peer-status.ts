import type { Clock } from "../base/clock.ts";
import type { Logger } from "../base/log.ts";
import { formatId } from "../membership/member.ts";
import type { PeerMetrics } from "./metrics.ts";

/** Whether a peer is reachable, by the last attempt; changes are logged. */
export class PeerStatus {
  /** `Clock.nowMs` when it became active; undefined while it is not. */
  activeSince: number | undefined;
  readonly #id: bigint;
  readonly #clock: Clock;
  readonly #logger: Logger;
  readonly #metrics: PeerMetrics;

  constructor(id: bigint, clock: Clock, logger: Logger, metrics: PeerMetrics) {
    this.#id = id;
    this.#clock = clock;
    this.#logger = logger;
    this.#metrics = metrics;
  }

  get isActive(): boolean {
    return this.activeSince !== undefined;
  }

  activate(): void {
    if (this.isActive) return;
    this.activeSince = this.#clock.nowMs();
    this.#metrics.peerActive(this.#id, true);
    this.#logger.info("peer became active", { "peer-id": formatId(this.#id) });
  }

  /** `source` is the channel (such as "pipeline"), `action` the failed action (such as "write"). */
  deactivate(source: string, action: string, reason: string): void {
    const error = `failed to ${action} ${formatId(this.#id)} on ${source} (${reason})`;
    if (!this.isActive) {
      if (this.#logger.debugEnabled) {
        this.#logger.debug("peer deactivated again", { "peer-id": formatId(this.#id), error });
      }
      return;
    }
    this.activeSince = undefined;
    this.#metrics.peerActive(this.#id, false);
    this.#logger.warn("peer became inactive (message send to peer failed)", { "peer-id": formatId(this.#id), error });
  }

  /** The peer was removed. */
  close(): void {
    if (!this.isActive) return;
    this.activeSince = undefined;
    this.#metrics.peerGone(this.#id);
  }
}
