/**
 * The token of a client's user: asked for when first needed, and again when a server refuses it, once for all calls that
 * wait. A cluster without authentication gives none, and calls go without.
 */
import { Code } from "../base/grpc-codes.ts";
import { AuthService } from "../proto/etcdserverpb.ts";
import type { Caller, Retry } from "./caller.ts";
import { RpcError } from "./rpc-error.ts";

/** Answers after which the same call with a new token may pass; it was not carried out. Source: etcd's rpctypes. */
const REFUSALS = [
  "etcdserver: invalid auth token",
  "etcdserver: revision of auth store is old",
  "etcdserver: user name is empty",
];
const NOT_ENABLED = "etcdserver: authentication is not enabled";

export class Tokens {
  token = "";
  /** No token was asked for yet. */
  #isMissing = true;
  readonly #caller: Caller;
  readonly #name: string;
  readonly #password: string;
  #waiting: Retry[] = [];
  #asking = false;

  constructor(caller: Caller, name: string, password: string) {
    this.#caller = caller;
    this.#name = name;
    this.#password = password;
  }

  /** Whether the server refused a call for its token alone. */
  isRefusal(path: string, code: number, details: string): boolean {
    if (path === AuthService.Authenticate.path) return false;
    return code === Code.UNAUTHENTICATED || REFUSALS.includes(details);
  }

  /** Whether a call must wait for a token. */
  isNeededBy(path: string): boolean {
    return this.#isMissing && path !== AuthService.Authenticate.path;
  }

  /** The next call asks for another. */
  forget(): void {
    this.#isMissing = true;
  }

  /** Gets a new token and then calls `onRetry`; cancels the call when there is none to be had. */
  renew(call: Retry): void {
    this.#waiting.push(call);
    if (this.#asking) return;
    this.#asking = true;
    this.#ask().then(
      (token) => {
        this.token = token;
        this.#isMissing = false;
        this.#done((each) => each.onRetry());
      },
      (error: unknown) => this.#done((each) => each.cancel(error)),
    );
  }

  async #ask(): Promise<string> {
    const { token } = this;
    // Asked without the token: a refused one would be refused here too.
    this.token = "";
    this.#isMissing = true;
    try {
      const request = { name: this.#name, password: this.#password };
      return await this.#caller.unary(AuthService.Authenticate, request, "read", undefined, (answer) => answer.token);
    } catch (error) {
      if (error instanceof RpcError && error.details === NOT_ENABLED) return "";
      this.token = token;
      throw error;
    }
  }

  #done(tell: (call: Retry) => void): void {
    this.#asking = false;
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const call of waiting) tell(call);
  }
}
