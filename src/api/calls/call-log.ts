import type { Clock } from "../../base/clock.ts";
import { goDuration } from "../../base/duration.ts";
import type { Logger } from "../../base/log.ts";
import type { CallInfo } from "../../rpc/contract.ts";

/** Logs each finished call at level debug. Costs two clock readings per call, so it is created only for that level. */
export class CallLog {
  readonly #clock: Clock;
  readonly #logger: Logger;
  readonly #starts = new WeakMap<CallInfo, number>();

  constructor(clock: Clock, logger: Logger) {
    this.#clock = clock;
    this.#logger = logger;
  }

  readonly onCallStart = (call: CallInfo): void => {
    this.#starts.set(call, this.#clock.nowMs());
  };

  readonly onCallEnd = (call: CallInfo, code: number): void => {
    const nowMs = this.#clock.nowMs();
    this.#logger.debug("request stats", {
      "response type": call.path,
      remote: call.remoteAddress,
      "time spent": goDuration(nowMs - (this.#starts.get(call) ?? nowMs)),
      code,
    });
  };
}
