import { hash, hashSync, verify } from "@node-rs/bcrypt";
import type { Random } from "../base/random.ts";
import type { AuthProblem } from "./problems.ts";

/** Passwords as they are kept: hashed with bcrypt in Go's notation (`$2a$…`). */
export interface PasswordHasher {
  /** The hash, or why there is none. */
  hash(password: string): Promise<{ readonly hash: string } | AuthProblem>;
  /** The same at once, for entries that members before etcd 3.5 put into the log. */
  hashNow(password: string): string;
  /** True when the password is the one that was hashed; false also for what is no hash. */
  matches(password: string, hash: Uint8Array): Promise<boolean | "tooManyRequests">;
}

/** bcrypt uses no more of a password, and Go refuses to hash a longer one. */
const PASSWORD_BYTES_MAX = 72;
const SALT_BYTES = 16;
/**
 * Hashes under way at a time. They run on the thread pool, half of which must stay free for the log: a hash takes tens of
 * milliseconds, a write to the log must not wait for one.
 */
const RUNNING_MAX = 2;
/** Hashes that may wait for their turn. */
const WAITING_MAX = 10_000;

/** Hashes off the main thread, a few at a time. */
export class BcryptHasher implements PasswordHasher {
  readonly #cost: number;
  readonly #random: Random;
  #running = 0;
  #waiting: (() => void)[] = [];

  constructor(cost: number, random: Random) {
    this.#cost = cost;
    this.#random = random;
  }

  async hash(password: string): Promise<{ readonly hash: string } | AuthProblem> {
    if (Buffer.byteLength(password) > PASSWORD_BYTES_MAX) return "passwordTooLong";
    if (!(await this.#begin())) return "tooManyRequests";
    try {
      return { hash: await hash(password, this.#options()) };
    } finally {
      this.#end();
    }
  }

  hashNow(password: string): string {
    return hashSync(password, this.#options());
  }

  async matches(password: string, hashed: Uint8Array): Promise<boolean | "tooManyRequests"> {
    if (!(await this.#begin())) return "tooManyRequests";
    try {
      return await verify(password, Buffer.from(hashed).toString("latin1"));
    } finally {
      this.#end();
    }
  }

  #options(): { cost: number; salt: Uint8Array; version: "2a" } {
    const salt = Buffer.alloc(SALT_BYTES);
    for (let at = 0; at < SALT_BYTES; at += 8) salt.writeBigUInt64BE(this.#random.uint64(), at);
    // The library takes no subclass of Uint8Array.
    return { cost: this.#cost, salt: new Uint8Array(salt), version: "2a" };
  }

  /** Waits for a turn; false when too many wait already. */
  #begin(): Promise<boolean> {
    if (this.#running < RUNNING_MAX) {
      this.#running++;
      return Promise.resolve(true);
    }
    if (this.#waiting.length >= WAITING_MAX) return Promise.resolve(false);
    return new Promise((resolve) => this.#waiting.push(() => resolve(true)));
  }

  /** Hands the turn to who waits longest. */
  #end(): void {
    const next = this.#waiting.shift();
    if (next === undefined) this.#running--;
    else next();
  }
}
