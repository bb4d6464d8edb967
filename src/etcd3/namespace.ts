/** Keys below a prefix, and everything that can be done with them. */
import {
  ComparatorBuilder,
  type comparator,
  DeleteBuilder,
  MultiRangeBuilder,
  PutBuilder,
  SingleRangeBuilder,
} from "./builder.ts";
import { KVClient, LeaseClient } from "./clients.ts";
import { Election } from "./election.ts";
import type { CompareTarget } from "./enums.ts";
import { type ILeaseOptions, Lease } from "./lease.ts";
import { Lock } from "./lock.ts";
import type { IOptions } from "./options.ts";
import type { ConnectionPool } from "./pool.ts";
import { type Rangable, Range } from "./range.ts";
import { type ISTMOptions, Isolation, SoftwareTransaction } from "./stm.ts";
import { NSApplicator, toBuffer } from "./util.ts";
import { WatchBuilder } from "./watch.ts";

const STM_RETRIES = 3;

export class Namespace {
  readonly prefix: Buffer;
  readonly kv: KVClient;
  readonly leaseClient: LeaseClient;
  protected readonly pool: ConnectionPool;
  protected readonly options: IOptions;
  readonly #names: NSApplicator;

  protected constructor(prefix: Buffer, pool: ConnectionPool, options: IOptions) {
    this.prefix = prefix;
    this.pool = pool;
    this.options = options;
    this.kv = new KVClient(pool);
    this.leaseClient = new LeaseClient(pool);
    this.#names = new NSApplicator(prefix);
  }

  get(key: string | Buffer): SingleRangeBuilder {
    return new SingleRangeBuilder(this.kv, this.#names, key);
  }

  getAll(): MultiRangeBuilder {
    return new MultiRangeBuilder(this.kv, this.#names);
  }

  put(key: string | Buffer): PutBuilder {
    return new PutBuilder(this.kv, this.#names, key);
  }

  delete(): DeleteBuilder {
    return new DeleteBuilder(this.kv, this.#names);
  }

  lease(ttl: number, options?: ILeaseOptions): Lease {
    return new Lease(this.pool, this.#names, ttl, options);
  }

  lock(key: string | Buffer): Lock {
    return new Lock(this.pool, this.#names, key);
  }

  stm(options?: Partial<ISTMOptions>): SoftwareTransaction {
    const usual = { retries: STM_RETRIES, prefetch: [], isolation: Isolation.SerializableSnapshot };
    return new SoftwareTransaction({ ...usual, ...options }, this.#names, this.kv);
  }

  if(
    key: string | Buffer,
    column: keyof typeof CompareTarget,
    cmp: keyof typeof comparator,
    value: string | Buffer | number,
  ): ComparatorBuilder {
    return new ComparatorBuilder(this.kv, this.#names).and(key, column, cmp, value);
  }

  watch(): WatchBuilder {
    return new WatchBuilder(this.pool, this.#names);
  }

  range(range: Rangable): Range {
    return Range.from(range);
  }

  namespace(prefix: string | Buffer): Namespace {
    return new Namespace(Buffer.concat([this.prefix, toBuffer(prefix)]), this.pool, this.options);
  }

  election(name: string, ttl?: number): Election {
    return new Election(this, name, ttl);
  }
}
