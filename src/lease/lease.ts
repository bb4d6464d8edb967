import type { ByteString } from "../mvcc/model/types.ts";
import { KeySet } from "./key-set.ts";

/** Receives the outcome of a renewal: null and the granted TTL in seconds, or the error. */
export type RenewCallback = (error: Error | null, ttl: number) => void;

/** One lease of the lessor: small, because a cluster may have hundreds of thousands. Only the lessor changes it. */
export class Lease {
  /** Not 0n. */
  readonly id: bigint;
  /** Granted time to live in seconds. */
  readonly ttl: number;
  /** Seconds left at the last checkpoint; 0 if there was none since the last renewal. */
  remainingTtl: number;
  /** On the lessor's clock; Infinity while the lessor is not primary. */
  expiryMs = Number.POSITIVE_INFINITY;
  /**
   * When the next checkpoint is due; Infinity for none. The checkpoint queue holds the lease exactly when this is
   * finite.
   */
  checkpointMs = Number.POSITIVE_INFINITY;
  revoked = false;
  /** In the list of expired leases that the server has not taken yet. */
  reported = false;
  /** Renewals that arrived after the expiry and wait for the revocation. */
  waiting: RenewCallback[] | undefined = undefined;
  /** The only key, or the set if there was ever more than one. */
  #keys: ByteString | KeySet | undefined = undefined;

  constructor(id: bigint, ttl: number, remainingTtl: number) {
    this.id = id;
    this.ttl = ttl;
    this.remainingTtl = remainingTtl;
  }

  /** Seconds to live if it were renewed now. */
  get secondsLeft(): number {
    return this.remainingTtl > 0 ? this.remainingTtl : this.ttl;
  }

  get keyCount(): number {
    const keys = this.#keys;
    return keys === undefined ? 0 : typeof keys === "string" ? 1 : keys.keys.size;
  }

  /** Undefined for a lease that never had more than one key. */
  get keySet(): KeySet | undefined {
    const keys = this.#keys;
    return typeof keys === "string" ? undefined : keys;
  }

  /** The attached keys, in arbitrary order. */
  keys(): Iterable<ByteString> {
    const keys = this.#keys;
    if (keys === undefined) return [];
    return typeof keys === "string" ? [keys] : keys.keys;
  }

  /** The attached keys, ascending: every member must delete them in the same order. */
  sortedKeys(): ByteString[] {
    return [...this.keys()].sort();
  }

  addKey(key: ByteString): void {
    const keys = this.#keys;
    if (keys === undefined) this.#keys = key;
    else if (typeof keys !== "string") keys.add(key);
    else if (keys !== key) this.#keys = new KeySet(keys, key);
  }

  forgetKeys(): void {
    this.#keys = undefined;
  }

  removeKey(key: ByteString): void {
    const keys = this.#keys;
    if (keys === key) this.#keys = undefined;
    else if (keys !== undefined && typeof keys !== "string") keys.keys.delete(key);
  }
}
