/**
 * The members behind a TCP proxy: which of them takes the next connection, and which are passed over because they could
 * not be reached. Those are tried again after the retry delay. Source: etcd v3.7, server/proxy/tcpproxy.
 */
import { connect } from "node:net";
import type { Clock, Timer } from "../../base/clock.ts";
import { goDuration } from "../../base/duration.ts";
import type { Logger } from "../../base/log.ts";
import type { Random } from "../../base/random.ts";
import { systemText } from "../../base/system-error.ts";

export interface Remote {
  readonly host: string;
  readonly port: number;
  /** As logged. */
  readonly address: string;
  /** As in SRV records (RFC 2782): the lowest priority is used first; weights divide the connections within it. */
  readonly priority: number;
  readonly weight: number;
}

export interface RemotesOptions {
  readonly remotes: readonly Remote[];
  /** Milliseconds until a member that could not be reached is tried again. */
  readonly retryMs: number;
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
}

/** Of 100 connections, one goes to a member of weight 0 where others have a weight. */
const UNWEIGHTED_ONE_IN = 100;
const PROBE_TIMEOUT_MS = 5000;

export class Remotes {
  readonly #options: RemotesOptions;
  readonly #inactive = new Set<Remote>();
  #turn = 0;
  #timer: Timer | undefined;
  #isClosed = false;

  constructor(options: RemotesOptions) {
    this.#options = options;
  }

  /** The member for the next connection; undefined when none can be reached. */
  pick(): Remote | undefined {
    const active = this.#options.remotes.filter((remote) => !this.#inactive.has(remote));
    const priority = Math.min(...active.map((remote) => remote.priority));
    const best = active.filter((remote) => remote.priority === priority);
    const weighted = best.filter(({ weight }) => weight > 0);
    const unweighted = best.filter(({ weight }) => weight === 0);
    const { random } = this.#options;
    if (weighted.length === 0 || (unweighted.length > 0 && random.below(UNWEIGHTED_ONE_IN) === 0)) {
      return unweighted.length === 0 ? undefined : unweighted[this.#turn++ % unweighted.length];
    }
    let left = random.below(weighted.reduce((sum, { weight }) => sum + weight, 0));
    return weighted.find(({ weight }) => {
      left -= weight;
      return left < 0;
    });
  }

  /** The member could not be reached: it takes no connection until it answers again. */
  deactivate(remote: Remote, error: unknown): void {
    if (this.#inactive.has(remote) || this.#isClosed) return;
    this.#inactive.add(remote);
    this.#options.logger.warn("deactivated endpoint", this.#fields(remote, error));
    this.#timer ??= this.#options.clock.after(this.#options.retryMs, () => void this.#retry());
  }

  close(): void {
    this.#isClosed = true;
    this.#timer?.cancel();
  }

  async #retry(): Promise<void> {
    this.#timer = undefined;
    await Promise.all([...this.#inactive].map((remote) => this.#probe(remote)));
    if (this.#inactive.size === 0 || this.#isClosed) return;
    this.#timer ??= this.#options.clock.after(this.#options.retryMs, () => void this.#retry());
  }

  async #probe(remote: Remote): Promise<void> {
    const { logger } = this.#options;
    try {
      await this.#reach(remote);
      this.#inactive.delete(remote);
      logger.info("activated", { address: remote.address });
    } catch (error) {
      const message = "failed to activate endpoint (stay inactive for another interval)";
      if (!this.#isClosed) logger.warn(message, this.#fields(remote, error));
    }
  }

  #reach({ host, port }: Remote): Promise<void> {
    return new Promise((resolve, reject) => {
      const socket = connect({ host, port });
      const timer = this.#options.clock.after(PROBE_TIMEOUT_MS, () => socket.destroy(new Error("i/o timeout")));
      const end = (settle: () => void): void => {
        timer.cancel();
        socket.destroy();
        settle();
      };
      socket.once("connect", () => end(resolve));
      socket.once("error", (error) => end(() => reject(error)));
    });
  }

  #fields({ address }: Remote, error: unknown) {
    return { address, interval: goDuration(this.#options.retryMs), error: systemText(error) };
  }
}
