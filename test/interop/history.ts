/**
 * Seeded random requests that exercise every option of the KV, lease and compaction RPCs.
 *
 * Owns the generation, not the comparison. The generator follows the history with a rough model (revision, leases), so
 * that most requests hit something, and deliberately deviates from it sometimes: failing requests are part of the
 * history too.
 */
import type { MethodType } from "../../src/base/protobuf.ts";
import {
  CompactionRequest,
  Compare,
  DeleteRangeRequest,
  HashKVRequest,
  KVService,
  LeaseGrantRequest,
  LeaseLeasesRequest,
  LeaseRevokeRequest,
  LeaseService,
  LeaseTimeToLiveRequest,
  MaintenanceService,
  PutRequest,
  RangeRequest,
  RequestOp,
  TxnRequest,
} from "../../src/proto/etcdserverpb.ts";
import type { SeededRandom } from "../harness/random.ts";

export interface Step {
  readonly method: MethodType<unknown, unknown>;
  readonly request: unknown;
}

/** The generator's knowledge of the servers' state; `revision` is updated from the responses. */
export interface HistoryState {
  revision: number;
  compacted: number;
  readonly leases: bigint[];
}

export interface HistoryOptions {
  /** Keys of the histories. Fewer keys make longer per-key histories. */
  readonly keys: readonly Buffer[];
  readonly opsPerTxnMax: number;
  readonly depthMax: number;
}

/** Keys that order, nest and end in ways that range arithmetic gets wrong. */
export function awkwardKeys(): Buffer[] {
  const plain = ["a", "a/", "a/b", "a/b/c", "a/c", "ab", "b", "foo", "foo1", "foo2", "zoo", "é", "日本"];
  const raw = [[0], [0, 0], [0, 1], [97, 0], [97, 255], [97, 255, 255], [127], [128], [255], [255, 0], [255, 255]];
  const numbered = Array.from({ length: 24 }, (_, i) => `k/${String(i).padStart(2, "0")}`);
  return [...plain, ...numbered].map((text) => Buffer.from(text)).concat(raw.map((bytes) => Buffer.from(bytes)));
}

const step = <I, O>(method: MethodType<I, O>, request: I): Step => ({ method: method as Step["method"], request });

/** Chooses the next request of the history. */
export function nextStep(random: SeededRandom, state: HistoryState, options: HistoryOptions): Step {
  const generator = new Generator(random, state, options);
  const roll = random.below(1000);
  if (roll < 330) return step(KVService.Put, generator.put());
  if (roll < 560) return step(KVService.Range, generator.range());
  if (roll < 640) return step(KVService.DeleteRange, generator.deleteRange());
  if (roll < 860) return step(KVService.Txn, survivable(generator.txn(0)));
  if (roll < 900) return generator.leaseGrant();
  if (roll < 915) return generator.leaseRevoke();
  if (roll < 935)
    return step(
      LeaseService.LeaseTimeToLive,
      LeaseTimeToLiveRequest.create({ id: generator.lease(), keys: random.chance(0.7) }),
    );
  if (roll < 940) return step(LeaseService.LeaseLeases, LeaseLeasesRequest.create());
  if (roll < 960) return generator.compaction();
  return step(MaintenanceService.HashKV, HashKVRequest.create({ revision: generator.revision() }));
}

/**
 * Without the puts that crash stock etcd: when a transaction deletes a key and then puts it with ignore_value or
 * ignore_lease, the put passes the check beforehand and fails while it is applied, which makes etcd panic.
 */
function survivable(txn: TxnRequest): TxnRequest {
  if (!opsOf(txn).some((op) => op.requestDeleteRange)) return txn;
  for (const { requestPut } of opsOf(txn)) {
    if (requestPut) Object.assign(requestPut, { ignoreValue: false, ignoreLease: false });
  }
  return txn;
}

function opsOf(txn: TxnRequest): RequestOp[] {
  const own = [...txn.success, ...txn.failure];
  return own.concat(own.flatMap((op) => (op.requestTxn ? opsOf(op.requestTxn) : [])));
}

class Generator {
  readonly #random: SeededRandom;
  readonly #state: HistoryState;
  readonly #options: HistoryOptions;

  constructor(random: SeededRandom, state: HistoryState, options: HistoryOptions) {
    this.#random = random;
    this.#state = state;
    this.#options = options;
  }

  put(): PutRequest {
    const random = this.#random;
    const request = PutRequest.create({ key: this.#key(), prevKv: random.chance(0.3) });
    if (random.chance(0.08)) request.ignoreValue = true;
    else request.value = this.#value();
    if (random.chance(0.08)) request.ignoreLease = true;
    else if (random.chance(0.25)) request.lease = this.lease();
    return request;
  }

  range(): RangeRequest {
    const random = this.#random;
    const { key, rangeEnd } = this.#interval();
    const request = RangeRequest.create({ key, rangeEnd });
    if (random.chance(0.3)) request.limit = random.below(8);
    if (random.chance(0.3)) request.revision = this.revision();
    if (random.chance(0.4)) {
      request.sortOrder = random.pick([0, 1, 2] as const);
      request.sortTarget = random.pick([0, 1, 2, 3, 4] as const);
    }
    request.serializable = random.chance(0.3);
    request.keysOnly = random.chance(0.15);
    request.countOnly = random.chance(0.15);
    if (random.chance(0.1)) request.minModRevision = this.#pastRevision();
    if (random.chance(0.1)) request.maxModRevision = this.#pastRevision();
    if (random.chance(0.1)) request.minCreateRevision = this.#pastRevision();
    if (random.chance(0.1)) request.maxCreateRevision = this.#pastRevision();
    return request;
  }

  deleteRange(): DeleteRangeRequest {
    const random = this.#random;
    const prevKv = random.chance(0.5);
    if (random.chance(0.75)) return DeleteRangeRequest.create({ key: this.#key(), prevKv });
    return DeleteRangeRequest.create({ ...this.#interval(), prevKv });
  }

  txn(depth: number): TxnRequest {
    const random = this.#random;
    return TxnRequest.create({
      compare: Array.from({ length: random.below(4) }, () => this.#compare()),
      success: this.#ops(depth),
      failure: this.#ops(depth),
    });
  }

  leaseGrant(): Step {
    const random = this.#random;
    const { leases } = this.#state;
    const repeated = leases.length > 0 && random.chance(0.1);
    const id = repeated
      ? random.pick(leases)
      : BigInt(1 + random.below(2 ** 30)) * (random.chance(0.1) ? 8_589_934_593n : 1n);
    if (!repeated) leases.push(id);
    // Long enough that none expires during the history.
    return step(LeaseService.LeaseGrant, LeaseGrantRequest.create({ id, ttl: 10_000 + random.below(1000) }));
  }

  leaseRevoke(): Step {
    const id = this.lease();
    const at = this.#state.leases.indexOf(id);
    if (at >= 0) this.#state.leases.splice(at, 1);
    return step(LeaseService.LeaseRevoke, LeaseRevokeRequest.create({ id }));
  }

  lease(): bigint {
    const { leases } = this.#state;
    return leases.length === 0 || this.#random.chance(0.05) ? 404n : this.#random.pick(leases);
  }

  compaction(): Step {
    const random = this.#random;
    const state = this.#state;
    const revision = random.chance(0.2)
      ? this.revision()
      : state.compacted + random.below(state.revision - state.compacted + 1);
    if (revision > state.compacted && revision <= state.revision) state.compacted = revision;
    return step(KVService.Compact, CompactionRequest.create({ revision, physical: random.chance(0.5) }));
  }

  /** Mostly a readable revision; also 0, compacted and future ones. */
  revision(): number {
    const random = this.#random;
    const { revision, compacted } = this.#state;
    const roll = random.below(20);
    if (roll === 0) return revision + 1 + random.below(3);
    if (roll === 1) return Math.max(0, compacted - random.below(3));
    if (roll <= 4) return 0;
    return compacted + random.below(revision - compacted + 1);
  }

  #pastRevision(): number {
    return this.#random.below(this.#state.revision + 2);
  }

  #ops(depth: number): RequestOp[] {
    const random = this.#random;
    const { opsPerTxnMax, depthMax } = this.#options;
    const count = random.chance(0.1) ? random.below(opsPerTxnMax) : random.below(5);
    return Array.from({ length: count }, () => {
      const roll = random.below(10);
      if (roll < 5) return RequestOp.create({ requestPut: this.put() });
      if (roll < 7) return RequestOp.create({ requestRange: this.range() });
      if (roll < 8) return RequestOp.create({ requestDeleteRange: this.deleteRange() });
      if (depth < depthMax) return RequestOp.create({ requestTxn: this.txn(depth + 1) });
      return RequestOp.create({ requestPut: this.put() });
    });
  }

  #compare(): Compare {
    const random = this.#random;
    const target = random.pick([0, 1, 2, 3, 4] as const);
    const compare = Compare.create({ result: random.pick([0, 1, 2, 3] as const), target, key: this.#key() });
    if (random.chance(0.2)) Object.assign(compare, this.#interval());
    // Half of them against zero, the value used for comparing a missing key.
    const number = random.chance(0.5) ? 0 : this.#pastRevision();
    if (target === 0) compare.version = random.below(4);
    else if (target === 1) compare.createRevision = number;
    else if (target === 2) compare.modRevision = number;
    else if (target === 3) compare.value = this.#value();
    else compare.lease = random.chance(0.5) ? 0n : this.lease();
    return compare;
  }

  #key(): Buffer {
    return this.#random.pick(this.#options.keys);
  }

  #value(): Buffer {
    const random = this.#random;
    if (random.chance(0.1)) return Buffer.alloc(0);
    if (random.chance(0.05)) return Buffer.alloc(random.below(3000), random.below(256));
    return Buffer.from(`v${random.below(20)}`);
  }

  #interval(): { key: Buffer; rangeEnd: Buffer } {
    const random = this.#random;
    const none = Buffer.alloc(0);
    const zero = Buffer.from([0]);
    const key = this.#key();
    switch (random.below(6)) {
      case 0:
        return { key, rangeEnd: none };
      case 1:
        return { key, rangeEnd: zero };
      case 2:
        return { key: zero, rangeEnd: zero };
      case 3:
        return { key, rangeEnd: prefixEnd(key) };
      case 4:
        return { key: Buffer.from("k/"), rangeEnd: Buffer.from("k0") };
      default:
        return { key, rangeEnd: this.#key() };
    }
  }
}

/** The end of the range of all keys with this prefix. */
export function prefixEnd(prefix: Uint8Array): Buffer {
  const end = Buffer.from(prefix);
  for (let i = end.length - 1; i >= 0; i--) {
    if (end[i]! < 255) {
      end[i]!++;
      return end.subarray(0, i + 1);
    }
  }
  return Buffer.from([0]);
}
