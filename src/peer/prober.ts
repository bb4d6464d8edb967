import type { Clock, Timer } from "../base/clock.ts";
import { goDuration } from "../base/duration.ts";
import type { Logger } from "../base/log.ts";
import type { Url } from "../config/values/url.ts";
import { formatId } from "../membership/member.ts";
import type { PeerContext } from "./context.ts";

/** The two kinds of connections, in etcd's words. */
export type ProbeName = "ROUND_TRIPPER_RAFT_MESSAGE" | "ROUND_TRIPPER_SNAPSHOT";

export const PROBING_PATH = "/raft/probing";
/** Weight of the newest round trip in the smoothed one. */
const NEWEST_WEIGHT = 0.125;
const HEALTHY_CHECK_MS = 30_000;
const UNHEALTHY_CHECK_MS = 5000;
const CLOCK_DIFFERENCE_MS_MAX = 1000;
/** Probes are closer together than the read timeout, which would end their connection. */
const BEFORE_READ_TIMEOUT_MS = 1000;
const INTERVAL_MS_MIN = 100;

/**
 * Asks a peer for its time every few seconds: the round-trip time goes into the metrics; a peer that does not answer,
 * or whose clock differs by more than a second, is logged. Source: etcd's rafthttp/probing_status.go and
 * xiang90/probing.
 */
export class Prober {
  readonly #name: ProbeName;
  readonly #peer: string;
  readonly #context: PeerContext;
  #urls: readonly Url[];
  #picked = 0;
  #probeTimer: Timer;
  #checkTimer: Timer;
  #isProbing = false;
  /** Changes with the URLs, so that answers from former URLs are ignored. */
  #generation = 0;
  #isHealthy = false;
  #smoothedMs = 0;
  #clockDifferenceMs = 0;
  #error = "";

  constructor(name: ProbeName, peerId: bigint, urls: readonly Url[], context: PeerContext) {
    this.#name = name;
    this.#peer = formatId(peerId);
    this.#urls = urls;
    this.#context = context;
    const intervalMs = Math.max(context.readTimeoutMs - BEFORE_READ_TIMEOUT_MS, INTERVAL_MS_MIN);
    this.#probeTimer = context.clock.every(intervalMs, () => void this.#probe(intervalMs));
    this.#checkTimer = context.clock.after(UNHEALTHY_CHECK_MS, () => this.#check());
  }

  update(urls: readonly Url[]): void {
    this.#generation++;
    this.#urls = urls;
    this.#picked = 0;
    this.#isHealthy = false;
    this.#smoothedMs = 0;
    this.#clockDifferenceMs = 0;
    this.#error = "";
  }

  stop(): void {
    this.#generation++;
    this.#probeTimer.cancel();
    this.#checkTimer.cancel();
  }

  async #probe(timeoutMs: number): Promise<void> {
    if (this.#isProbing) return;
    this.#isProbing = true;
    const { clock, http } = this.#context;
    const generation = this.#generation;
    const url = this.#urls[this.#picked]!;
    const startMs = clock.nowMs();
    try {
      const { status, body } = await http.request({ method: "GET", url, path: PROBING_PATH, timeoutMs });
      if (generation !== this.#generation) return;
      if (status !== 200) throw new Error(`got unexpected HTTP status code ${status} from ${url.text}${PROBING_PATH}`);
      this.#answered(clock.nowMs() - startMs, body.toString("utf8"), clock);
    } catch (error) {
      if (generation !== this.#generation) return;
      this.#isHealthy = false;
      this.#error = (error as Error).message;
      this.#picked = (this.#picked + 1) % this.#urls.length;
    } finally {
      this.#isProbing = false;
    }
  }

  #answered(roundTripMs: number, body: string, clock: Clock): void {
    const { OK, Now } = JSON.parse(body) as { OK?: unknown; Now?: unknown };
    const thenMs = typeof Now === "string" ? Date.parse(Now) : Number.NaN;
    if (OK !== true || Number.isNaN(thenMs)) throw new Error("the peer says that it is not well");
    const last = this.#smoothedMs === 0 ? roundTripMs : this.#smoothedMs;
    this.#smoothedMs = (1 - NEWEST_WEIGHT) * last + NEWEST_WEIGHT * roundTripMs;
    this.#clockDifferenceMs = clock.wallMs() - thenMs - this.#smoothedMs / 2;
    this.#isHealthy = true;
    this.#error = "";
  }

  #check(): void {
    const { logger, metrics, clock } = this.#context;
    if (!this.#isHealthy) this.#warn(logger, "prober detected unhealthy status", {});
    if (this.#clockDifferenceMs > CLOCK_DIFFERENCE_MS_MAX) {
      this.#warn(logger, "prober found high clock drift", { "clock-drift": goDuration(this.#clockDifferenceMs) });
    }
    metrics.roundTripSeconds.observe(this.#peer, this.#smoothedMs / 1000);
    const nextMs = this.#isHealthy ? HEALTHY_CHECK_MS : UNHEALTHY_CHECK_MS;
    this.#checkTimer = clock.after(nextMs, () => this.#check());
  }

  #warn(logger: Logger, message: string, more: Record<string, string>): void {
    logger.warn(message, {
      "round-tripper-name": this.#name,
      "remote-peer-id": this.#peer,
      ...more,
      rtt: goDuration(this.#smoothedMs),
      ...(this.#error === "" ? {} : { error: this.#error }),
    });
  }
}
