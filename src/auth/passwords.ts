import { encodeBase64, hashSync } from "bcryptjs";
import type { Random } from "../base/random.ts";
import { BcryptThreads } from "./bcrypt-threads.ts";
import type { HashAsker } from "./hash-queue.ts";
import type { AuthProblem } from "./problems.ts";

/** Passwords as they are kept: hashed with bcrypt in Go's notation (`$2a$…`). */
export interface PasswordHasher {
  /** The hash, or why there is none. Turns are shared fairly among those who ask. */
  hash(password: string, asker?: HashAsker): Promise<{ readonly hash: string } | AuthProblem>;
  /** The same at once, for entries that members before etcd 3.5 put into the log. */
  hashNow(password: string): string;
  /** True when the password is the one that was hashed; false also for what is no hash. */
  matches(password: string, hash: Uint8Array, asker?: HashAsker): Promise<boolean | "tooManyRequests">;
}

/** bcrypt uses no more of a password, and Go refuses to hash a longer one. */
const PASSWORD_BYTES_MAX = 72;
/** Characters of a password that are compared: as many bytes as bcrypt uses at least, so that a huge one costs nothing. */
const PASSWORD_COMPARED = 2 * PASSWORD_BYTES_MAX;
const SALT_BYTES = 16;
/** A hash that bcrypt can have made, whoever ran it. */
const HASH = /^\$2[aby]\$(?:0[4-9]|[12]\d|3[01])\$[./A-Za-z0-9]{53}$/;
/** Hashes under way at a time; the rest of the processors is for everybody else. */
const RUNNING_MAX = 2;
/** Hashes that may wait for their turn: of all, of one address, of one connection. */
const WAITING_MAX = { all: 10_000, ofAddress: 1000, ofConnection: 100 } as const;

/**
 * Hashes off the main thread, a few at a time. The library is plain JavaScript, so that it is the same on every platform; a
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

  /** A salt as the library takes it: with version and cost before it. */
  #salt(): string {
    const salt = Buffer.alloc(SALT_BYTES);
    for (let at = 0; at < SALT_BYTES; at += 8) salt.writeBigUInt64BE(this.#random.uint64(), at);
    return `$2a$${String(this.#cost).padStart(2, "0")}$${encodeBase64(salt, SALT_BYTES)}`;
  }
}
