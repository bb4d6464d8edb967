/**
 * The endpoints of one command: which of them answers, and why the others do not.
 *
 * Promises: waits within the time limit for an endpoint that may come back, and after a second of waiting calls `warn`
 * with the obstacle. An error that waiting cannot fix is reported at once, unless another endpoint may answer. The
 * final error names the cause at each endpoint.
 */
import type { Clock } from "../base/clock.ts";
import { parseEndpoint } from "../client/endpoint.ts";
import type { ConnectOptions, RawClient, RpcError, TlsOptions } from "../client/raw.ts";
import type { Trouble } from "../client/trouble.ts";
import { ConnectionError } from "./exit.ts";

export interface DialOptions {
  readonly endpoints: readonly string[];
  /** Used for endpoints that ask for TLS or leave it open; undefined for TLS only where the endpoint asks. */
  readonly tls: TlsOptions | undefined;
  readonly clock: Clock;
  readonly connect: ConnectOptions;
  /** Waits for any obstacle, within the time limit. */
  readonly patient: boolean;
  /** Called once per wait longer than a second. */
  readonly warn: (message: string, error: string) => void;
  /** Prefix of the TLS flags: `--`, or `--dest-`. */
  readonly flagPrefix: string;
}

/** Time for another endpoint to answer before a permanent error is reported. */
const OTHERS_MS = 2_000;
const PROBE_MS = 2_000;
const PROBE_PERIOD_MS = 1_000;

interface Member {
  readonly endpoint: string;
  readonly tls: TlsOptions | undefined;
  /** Undefined when the endpoint is not an address. */
  readonly client: RawClient | undefined;
  trouble: Trouble | undefined;
  /** The error with which it refused to serve at all. */
  refusal: RpcError | undefined;
}

export class Members {
  readonly #options: DialOptions;
  #members: Promise<readonly Member[]> | undefined;
  #current: Member | undefined;
  /** Comes last in the next selection. */
  #left: Member | undefined;
  #everStood = false;
  #closed = false;

  constructor(options: DialOptions) {
    this.#options = options;
  }

  /** The current endpoint or, if that is lost, another one that answers. Rejects with ConnectionError or RpcError. */
  async ready(timeoutMs: number): Promise<RawClient> {
    if (this.#closed) throw new ConnectionError("the connection was closed");
    if (this.#current?.client?.isReady) return this.#current.client;
    this.#members ??= this.#connect();
    const members = await this.#members;
    const willing = members.filter(({ refusal }) => refusal === undefined);
    const refusal = members.find((member) => member.refusal !== undefined)?.refusal;
    if (refusal === undefined) return this.#first(members, timeoutMs);
    try {
      return await this.#first(willing, Math.min(timeoutMs, OTHERS_MS));
    } catch {
      throw refusal;
    }
  }

  /** Leaves the current endpoint for another one, or reconnects it if there is none. */
  moveOn(): void {
    this.#left = this.#current;
    this.#current = undefined;
  }

  /** Excludes an endpoint that refused; false when no other is left. */
  async passOver(client: RawClient, refusal: RpcError): Promise<boolean> {
    const members = (await this.#members) ?? [];
    const refusing = members.find((member) => member.client === client);
    if (refusing === undefined) return false;
    refusing.refusal = refusal;
    if (this.#current === refusing) this.#current = undefined;
    return members.some((member) => member.refusal === undefined);
  }

  async close(): Promise<void> {
    this.#closed = true;
    for (const { client } of (await this.#members) ?? []) client?.close();
  }

  async #connect(): Promise<readonly Member[]> {
    const { connect } = await import("../client/raw.ts");
    return this.#options.endpoints.map((endpoint) => {
      const tls = tlsFor(endpoint, this.#options.tls);
      const nothing = { trouble: undefined, refusal: undefined };
      try {
        const client = connect(endpoint, { ...this.#options.connect, ...(tls === undefined ? {} : { tls }) });
        return { endpoint, tls, client, ...nothing };
      } catch (error) {
        const text = error instanceof Error ? error.message : String(error);
        return { endpoint, tls, client: undefined, ...nothing, trouble: { text, lasting: true } };
      }
    });
  }

  async #first(members: readonly Member[], timeoutMs: number): Promise<RawClient> {
    const left = this.#left;
    const inOrder = [...members.filter((member) => member !== left), ...members.filter((member) => member === left)];
    const standing = inOrder.find(({ client }) => client?.isReady);
    this.#current = standing ?? (await this.#wait(inOrder, timeoutMs));
    this.#everStood = true;
    return this.#current.client!;
  }

  /** The first of them that answers. */
  #wait(members: readonly Member[], timeoutMs: number): Promise<Member> {
    return new Promise((resolve, reject) => {
      const wait: Wait = { over: false, told: false, startMs: this.#options.clock.nowMs(), probed: new Set() };
      const end = <T>(settle: (outcome: T) => void, outcome: T) => {
        wait.over = true;
        settle(outcome);
      };
      const giveUp = () => {
        const hopeless = members.every(({ trouble }) => trouble?.lasting);
        if (hopeless && !this.#options.patient && !this.#everStood) end(reject, this.#failure(members, ""));
      };
      const tries = members.map(async (member) => {
        const look = () => void this.#look(member, members, wait).then(giveUp);
        if (member.client === undefined) throw new Error("no address");
        await member.client.ready(timeoutMs, look);
        end(resolve, member);
      });
      giveUp();
      const tooLate = () => end(reject, this.#failure(members, "context deadline exceeded"));
      Promise.any(tries).catch(tooLate);
    });
  }

  /** Finds out what is wrong with a member, repeatedly while a caller waits for it and it may change. */
  async #look(member: Member, members: readonly Member[], wait: Wait): Promise<void> {
    if (wait.probed.has(member)) return;
    wait.probed.add(member);
    const { clock } = this.#options;
    const { findTrouble } = await import("../client/probe.ts");
    while (!wait.over) {
      member.trouble = await findTrouble(member.endpoint, member.tls, PROBE_MS, clock);
      if (wait.over || (member.trouble?.lasting && !this.#options.patient && !this.#everStood)) return;
      if (!wait.told && clock.nowMs() - wait.startMs >= PROBE_PERIOD_MS) {
        wait.told = true;
        this.#options.warn("waiting for an endpoint that answers", this.#causes(members));
      }
      await pause(clock, PROBE_PERIOD_MS);
    }
  }

  #failure(members: readonly Member[], what: string): ConnectionError {
    return new ConnectionError([what, this.#causes(members)].filter(Boolean).join(": "));
  }

  #causes(members: readonly Member[]): string {
    return members.map((member) => this.#cause(member)).join("; ");
  }

  #cause({ endpoint, trouble }: Member): string {
    const text = trouble?.text ?? "no connection in time";
    const where = endpoint === "" || text.includes(endpoint.replace(/^.*:\/\//, "")) ? text : `${endpoint}: ${text}`;
    return `${where}${advice(trouble, endpoint, this.#options.flagPrefix)}`;
  }
}

interface Wait {
  over: boolean;
  told: boolean;
  readonly startMs: number;
  /** Members being probed. */
  readonly probed: Set<Member>;
}

const pause = (clock: Clock, ms: number) => new Promise<void>((resolve) => clock.after(ms, resolve));

/** `http://` means no TLS, `https://` means TLS, whatever the flags say. */
export function tlsFor(endpoint: string, tls: TlsOptions | undefined): TlsOptions | undefined {
  if (endpoint.startsWith("http://")) return undefined;
  try {
    return tls ?? (parseEndpoint(endpoint).secure ? {} : undefined);
  } catch {
    return tls;
  }
}

/** Advice, in parentheses after a space; empty when there is none. */
export function advice(trouble: Trouble | undefined, endpoint: string, flag: string): string {
  const address = endpoint.replace(/^.*:\/\//, "");
  switch (trouble?.kind) {
    case "authority":
      return ` (name the authority of the server's certificate with ${flag}cacert)`;
    case "client-certificate":
      return ` (give a client certificate with ${flag}cert and ${flag}key)`;
    case "client-authority":
      return ` (the server does not trust the authority of the certificate given with ${flag}cert)`;
    case "closed-on-certificate":
      return ` (it may not accept the certificate given with ${flag}cert)`;
    case "closed-without-certificate":
      return ` (it may want a client certificate: ${flag}cert and ${flag}key)`;
    case "speaks-tls":
      return ` (the endpoint is https://${address})`;
    case "speaks-plain":
      return ` (the endpoint is http://${address})`;
    default:
      return "";
  }
}
