/**
 * A connection's budget for frames that cost work and bring none of their own. Useful traffic earns budget, time
 * refills it, and a peer that overdraws it is flooding. Pure, except for the time it is given.
 *
 * Any amount of traffic from honest clients pays for itself: a window update follows data that we sent, a ping of a
 * bandwidth estimate (grpc-go, hyper, .NET) follows a frame that we sent, and a data frame that completes a message is
 * ordinary work. Only frames without such a reason are charged.
 *
 * A call costs the same whether it is answered, cancelled or refused, so the reset of an open stream is free, however
 * young: thousands of calls with a short deadline end like that together. A connection that does nothing else (rapid
 * reset) reads in slices like any other, and what cancelled calls leave behind is limited by the server's own queues.
 */

const BUDGET_MAX = 10_000;
const REFILL_PER_MS = 1;

export const Cost = {
  settings: 20,
  /** A ping that follows no reply of ours. */
  ping: 5,
  priority: 2,
  unknownFrame: 2,
  /** An acknowledgement of nothing, or another frame without effect. */
  idleFrame: 2,
  windowUpdate: 1,
  /** A small data frame that completes no message. */
  tinyData: 2,
  continuation: 2,
  /** An error for which we reset a stream. */
  streamError: 5,
  /** A reset of a finished call, beyond those that our frames explain. */
  lateReset: 1,
  largeHeaders: 100,
} as const;

export const Earning = { callDone: 3, message: 2, streamOpened: 2 } as const;

/** Clients return both the stream's and the connection's window, some in steps of a few kilobytes. */
export const earnedByData = (bytes: number): number => 2 + (bytes >>> 10);

export class FloodGuard {
  #budget = BUDGET_MAX;
  #refilledAtMs: number;

  constructor(nowMs: number) {
    this.#refilledAtMs = nowMs;
  }

  earn(amount: number): void {
    if (this.#budget < BUDGET_MAX) this.#budget += amount;
  }

  /** False when the budget is overdrawn. */
  spend(cost: number, nowMs: number): boolean {
    this.#budget -= cost;
    if (this.#budget >= 0) return true;
    // The refill is computed only here: an honest peer never gets this far.
    this.#budget = Math.min(BUDGET_MAX, this.#budget + Math.floor((nowMs - this.#refilledAtMs) * REFILL_PER_MS));
    this.#refilledAtMs = nowMs;
    return this.#budget >= 0;
  }
}

/**
 * Why a connection is ended with ENHANCE_YOUR_CALM: the text in the GOAWAY, and the log's advice to the operator. The
 * names are labels of the metric.
 */
export const ABUSES = {
  resets: {
    text: "too many resets of streams that are over",
    advice: "update the client, or the proxy in front",
  },
  stream_errors: {
    text: "too many stream errors",
    advice: "update the client, or the proxy in front: it breaks the rules of HTTP/2",
  },
  settings: { text: "too many SETTINGS frames", advice: "update the client, or the proxy in front" },
  pings: { text: "too many PING frames", advice: "let the client ping less often" },
  // grpc-go's text, from which its clients know that they must ping less often.
  too_many_pings: {
    text: "too_many_pings",
    advice: "raise the client's keepalive time to at least --grpc-keepalive-min-time, or lower that",
  },
  priorities: { text: "too many PRIORITY frames", advice: "update the client, or the proxy in front" },
  unknown_frames: { text: "too many frames of unknown types", advice: "update the client, or the proxy in front" },
  idle_frames: { text: "too many frames without effect", advice: "update the client, or the proxy in front" },
  window_updates: { text: "too many WINDOW_UPDATE frames", advice: "let the client return windows in larger steps" },
  tiny_data: {
    text: "too many tiny DATA frames that complete no message",
    advice: "let the client, or the proxy in front, send its messages in larger pieces",
  },
  continuations: { text: "too many CONTINUATION frames", advice: "send fewer or shorter headers" },
  header_blocks: { text: "header block too long", advice: "send fewer or shorter headers" },
  header_lists: { text: "too many header lists that are too large", advice: "send fewer or shorter headers" },
  header_bomb: { text: "header list far too large", advice: "send fewer or shorter headers" },
  unread_replies: {
    text: "too many replies wait to be read",
    advice: "let the client read its replies, or ask for less at a time",
  },
} as const;

export type Abuse = keyof typeof ABUSES;
