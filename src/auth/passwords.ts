import { encodeBase64, hashSync } from "bcryptjs";
import type { Random } from "../base/random.ts";
import { BcryptThreads } from "./bcrypt-threads.ts";
import type { HashAsker } from "./hash-queue.ts";
import type { AuthProblem } from "./problems.ts";

/** Password storage: bcrypt hashes in Go's notation (`$2a$…`). */
export interface PasswordHasher {
  /** The hash, or why there is none. Capacity is shared fairly among clients. */
  hash(password: string, asker?: HashAsker): Promise<{ readonly hash: string } | AuthProblem>;
  /** The synchronous form, for log entries of members before etcd 3.5. */
  hashNow(password: string): string;
  /** True when the password matches the hash; false also for an invalid hash. */
  matches(password: string, hash: Uint8Array, asker?: HashAsker): Promise<boolean | "tooManyRequests">;
}

/** bcrypt uses no more bytes of a password, and Go refuses to hash a longer one. */
const PASSWORD_BYTES_MAX = 72;
/**
 * Characters of a password that are compared: at least as many bytes as bcrypt uses, so that a huge password costs
 * nothing.
 */
const PASSWORD_COMPARED = 2 * PASSWORD_BYTES_MAX;
const SALT_BYTES = 16;
/** A valid bcrypt hash, from any implementation. */
const HASH = /^\$2[aby]\$(?:0[4-9]|[12]\d|3[01])\$[./A-Za-z0-9]{53}$/;
/** Hashes computed at a time; the other processors stay free. */
const RUNNING_MAX = 2;
/** Hashes that may wait: in total, per address, per connection. */
const WAITING_MAX = { all: 10_000, ofAddress: 1000, ofConnection: 100 } as const;

/**
 * Hashes off the main thread, a few at a time. The library is plain JavaScript, so it is the same on every platform; a
 * native one takes three quarters of its time.
 */
export class BcryptHasher implements PasswordHasher {
  readonly #cost: number;
  readonly #random: Random;
  readonly #threads = new BcryptThreads(RUNNING_MAX, WAITING_MAX);

  constructor(cost: number, random: Random) {
    this.#cost = cost;
    this.#random = random;
  }

  async hash(password: string, asker?: HashAsker): Promise<{ readonly hash: string } | AuthProblem> {
    if (Buffer.byteLength(password) > PASSWORD_BYTES_MAX) return "passwordTooLong";
    const made = await this.#threads.hash(password, this.#salt(), asker);
    return made === undefined ? "tooManyRequests" : { hash: made };
  }

  hashNow(password: string): string {
    return hashSync(password, this.#salt());
  }

  async matches(password: string, hashed: Uint8Array, asker?: HashAsker): Promise<boolean | "tooManyRequests"> {
    const hash = Buffer.from(hashed).toString("latin1");
    if (!HASH.test(hash)) return false;
    return (await this.#threads.matches(password.slice(0, PASSWORD_COMPARED), hash, asker)) ?? "tooManyRequests";
  }

  /** A salt in the library's form: prefixed with version and cost. */
  #salt(): string {
    const salt = Buffer.alloc(SALT_BYTES);
    for (let at = 0; at < SALT_BYTES; at += 8) salt.writeBigUInt64BE(this.#random.uint64(), at);
    return `$2a$${String(this.#cost).padStart(2, "0")}$${encodeBase64(salt, SALT_BYTES)}`;
  }
}
