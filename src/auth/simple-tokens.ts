import type { Clock, Timer } from "../base/clock.ts";
import { InvariantError } from "../base/fatal.ts";
import type { Random } from "../base/random.ts";
import { AuthInfo } from "./auth-info.ts";
import type { TokenProvider } from "./token-provider.ts";

const LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
const PREFIX_LETTERS = 16;
const TTL_DEFAULT_MS = 300_000;
/** How often expired tokens are removed. They stay valid until then. */
const SWEEP_MS = 1000;
/** Beyond this the oldest is dropped. A client that logs in this often does not return with old tokens. */
const TOKENS_MAX = 1_000_000;

/**
 * Tokens of random letters and the index before the log entry that made them. Every member makes the same ones from the
 * log and keeps them in memory while they are used. A restart loses those whose entries the database had already
 * applied. Source: etcd `server/auth/simple_token.go`.
 */
export class SimpleTokens implements TokenProvider {
  readonly #clock: Clock;
  readonly #random: Random;
  readonly #ttlMs: number;
  /** In order of creation. */
  readonly #tokens = new Map<string, Token>();
  #sweeper: Timer | null = null;

  constructor(options: { clock: Clock; random: Random; simpleTtlMs: number }) {
    this.#clock = options.clock;
    this.#random = options.random;
    this.#ttlMs = options.simpleTtlMs > 0 ? options.simpleTtlMs : TTL_DEFAULT_MS;
  }

  enable(): void {
    this.#sweeper ??= this.#clock.every(SWEEP_MS, () => this.#sweep());
  }

  disable(): void {
    this.#sweeper?.cancel();
    this.#sweeper = null;
    this.#tokens.clear();
  }

  invalidateUser(username: string): void {
    for (const [text, token] of this.#tokens) if (token.info.username === username) this.#tokens.delete(text);
  }

  newPrefix(): string {
    let prefix = "";
    while (prefix.length < PREFIX_LETTERS) prefix += LETTERS[this.#random.below(LETTERS.length)]!;
    return prefix;
  }

  assign(username: string, revision: number, prefix: string, index: number): { readonly token: string } {
    // etcd counts an entry as applied only afterwards, so its tokens name the index before it.
    const token = `${prefix}.${index - 1}`;
    if (this.#sweeper === null) return { token };
    if (this.#tokens.has(token)) throw new InvariantError(`a simple token of user ${username} was given out before`);
    if (this.#tokens.size >= TOKENS_MAX) this.#tokens.delete(this.#tokens.keys().next().value!);
    this.#tokens.set(token, new Token(new AuthInfo(username, revision), this.#clock.nowMs() + this.#ttlMs));
    return { token };
  }

  info(token: string, revision: number): AuthInfo | undefined {
    const known = this.#tokens.get(token);
    if (known === undefined) return undefined;
    known.expiryMs = this.#clock.nowMs() + this.#ttlMs;
    if (known.info.revision !== revision) known.info = new AuthInfo(known.info.username, revision);
    return known.info;
  }

  isCostly(): boolean {
    return false;
  }

  indexOf(token: string): number {
    const [, index] = /^[^.]*\.(\d{1,15})$/.exec(token) ?? [];
    return index === undefined ? 0 : Number(index) + 1;
  }

  #sweep(): void {
    const nowMs = this.#clock.nowMs();
    for (const [text, token] of this.#tokens) if (nowMs > token.expiryMs) this.#tokens.delete(text);
  }
}

class Token {
  /** The owner, at the revision of the last lookup. */
  info: AuthInfo;
  expiryMs: number;

  constructor(info: AuthInfo, expiryMs: number) {
    this.info = info;
    this.expiryMs = expiryMs;
  }
}
