/** A lock that is had at once or not at all: a key with a lease, which nobody else has. */
import { ComparatorBuilder, PutBuilder } from "./builder.ts";
import { KVClient } from "./clients.ts";
import { EtcdLockFailedError } from "./errors.ts";
import { Lease } from "./lease.ts";
import type { CallOptions } from "./options.ts";
import type { ConnectionPool } from "./pool.ts";
import type { NSApplicator } from "./util.ts";

const TTL_SECONDS = 30;

export class Lock {
  readonly #pool: ConnectionPool;
  readonly #namespace: NSApplicator;
  readonly #key: string | Buffer;
  #ttl = TTL_SECONDS;
  #lease: Lease | null = null;
  #options: CallOptions | undefined;

  constructor(pool: ConnectionPool, namespace: NSApplicator, key: string | Buffer) {
    this.#pool = pool;
    this.#namespace = namespace;
    this.#key = key;
  }

  ttl(seconds: number): this {
    if (this.#lease !== null) throw new Error("Cannot set a lock TTL after acquiring the lock");
    this.#ttl = seconds;
    return this;
  }

  options(options: CallOptions): this {
    this.#options = options;
    return this;
  }

  /** Rejects with EtcdLockFailedError when somebody else has it. */
  async acquire(): Promise<this> {
    const lease = new Lease(this.#pool, this.#namespace, this.#ttl, this.#options);
    const kv = new KVClient(this.#pool);
    const put = new PutBuilder(kv, this.#namespace, this.#key).value("").lease(lease.grant());
    const free = new ComparatorBuilder(kv, this.#namespace).and(this.#key, "Create", "==", 0).options(this.#options);
    try {
      const { succeeded } = await free.then(put).commit();
      if (!succeeded) throw new EtcdLockFailedError(`Failed to acquire a lock on ${this.#key}`);
      this.#lease = lease;
      return this;
    } catch (error) {
      await lease.revoke().catch(() => {});
      throw error;
    }
  }

  /** Null while it is not had. */
  leaseId(): Promise<string | null> {
    return this.#lease?.grant() ?? Promise.resolve(null);
  }

  async release(): Promise<void> {
    const lease = this.#lease;
    if (lease === null) throw new Error("Attempted to release a lock which was not acquired");
    this.#lease = null;
    await lease.revoke(this.#options);
  }

  /** Runs the function while it is had. */
  async do<T>(run: () => T | Promise<T>): Promise<T> {
    await this.acquire();
    try {
      return await run();
    } finally {
      await this.release();
    }
  }
}
