/**
 * Concurrent writers that know exactly what the store must hold after the server was killed.
 *
 * Each writer uses its own keys and leases, one operation at a time. Acknowledged operations must be there; of each
 * writer at most one operation, the one in progress at the kill, may be there or not, but only as a whole. `verify`
 * reads the store, decides that for each writer, and compares everything: keys, values, revisions, versions, leases,
 * and the store's revision, which counts every applied write once.
 */
import assert from "node:assert/strict";
import { type RawClient, RpcError } from "../../src/client/raw.ts";
import {
  Compare,
  Compare_CompareTarget as CompareTarget,
  DeleteRangeRequest,
  KVService,
  LeaseService,
  PutRequest,
  RequestOp,
  TxnRequest,
} from "../../src/proto/etcdserverpb.ts";
import type { KeyValue } from "../../src/proto/mvccpb.ts";
import type { SeededRandom } from "../harness/random.ts";
import { prefixEnd } from "../interop/history.ts";

type Operation =
  /** Increments the writer's counter from `from` by one and puts `key`, in one transaction. */
  | { readonly kind: "increment"; readonly from: number; readonly key: string; readonly value: string }
  | { readonly kind: "put"; readonly key: string; readonly value: string; readonly lease: bigint }
  /** Deletes existing keys of the writer, all in [first, last]. */
  | { readonly kind: "delete"; readonly keys: readonly string[] }
  | { readonly kind: "grant"; readonly lease: bigint }
  | { readonly kind: "revoke"; readonly lease: bigint };

interface Expected {
  readonly value: string;
  readonly modRevision: number;
  readonly createRevision: number;
  readonly version: number;
  readonly lease: bigint;
}

const TTL_SECONDS = 3600;
const KEYS_PER_WRITER_MAX = 60;
const LEASES_PER_WRITER_MAX = 4;

export class CrashLoad {
  readonly #client: RawClient;
  readonly #random: SeededRandom;
  readonly #writers: Writer[];
  readonly #keys = new Map<string, Expected>();
  /** Writes known to be applied; the store starts at revision 1. */
  #revision = 1;
  acknowledged = 0;
  /** Operations left open by a kill, and how many of them turned out to be applied. */
  open = 0;
  openApplied = 0;
  /** Highest revision of an acknowledged write. */
  acknowledgedRevision = 1;

  constructor(client: RawClient, random: SeededRandom, writers: number) {
    this.#client = client;
    this.#random = random;
    this.#writers = Array.from({ length: writers }, (_, id) => new Writer(id));
  }

  /** Writes until `stopped` or until the server is gone. Rejects when it refuses a valid operation. */
  async run(stopped: () => boolean): Promise<void> {
    await Promise.all(this.#writers.map((writer) => this.#write(writer, stopped)));
  }

  async #write(writer: Writer, stopped: () => boolean): Promise<void> {
    while (!stopped()) {
      const operation = writer.next(this.#random);
      writer.pending = operation;
      try {
        const revision = await this.#perform(writer, operation);
        writer.pending = undefined;
        this.acknowledged++;
        this.acknowledgedRevision = Math.max(this.acknowledgedRevision, revision);
        this.#apply(writer, operation, revision);
      } catch (error) {
        if (error instanceof RpcError && stopped()) return;
        throw new Error(`writer ${writer.id}: ${JSON.stringify(operation, jsonBigint)} failed: ${error}`);
      }
    }
  }

  async #perform(writer: Writer, operation: Operation): Promise<number> {
    const client = this.#client;
    switch (operation.kind) {
      case "increment": {
        const { succeeded, header } = await client.unary(KVService.Txn, incrementTxn(writer, operation));
        assert.ok(succeeded, `counter ${writer.counterKey} is not ${operation.from}, which nobody else can change`);
        return header!.revision;
      }
      case "put": {
        const { key, value, lease } = operation;
        const request = { key: Buffer.from(key), value: Buffer.from(value), lease };
        return (await client.unary(KVService.Put, request)).header!.revision;
      }
      case "delete": {
        const { deleted, header } = await client.unary(KVService.DeleteRange, deleteRequest(operation.keys));
        assert.equal(deleted, operation.keys.length, `deleted ${operation.keys.join(", ")}`);
        return header!.revision;
      }
      case "grant": {
        const { lease } = operation;
        const granted = await client.unary(LeaseService.LeaseGrant, { id: lease, ttl: TTL_SECONDS });
        assert.equal(granted.id, lease);
        return granted.header!.revision;
      }
      case "revoke":
        return (await client.unary(LeaseService.LeaseRevoke, { id: operation.lease })).header!.revision;
    }
  }

  /** Updates the expectation for the operation. `revision` is the write's, if it made one. */
  #apply(writer: Writer, operation: Operation, revision: number): void {
    switch (operation.kind) {
      case "increment":
        this.#revision++;
        writer.counter = operation.from + 1;
        this.#put(writer.counterKey, String(writer.counter), 0n, revision);
        this.#put(operation.key, operation.value, 0n, revision);
        writer.keys.add(operation.key);
        break;
      case "put":
        this.#revision++;
        this.#put(operation.key, operation.value, operation.lease, revision);
        writer.keys.add(operation.key);
        break;
      case "delete":
        this.#revision++;
        this.#delete(writer, operation.keys);
        break;
      case "grant":
        writer.leases.add(operation.lease);
        break;
      case "revoke": {
        writer.leases.delete(operation.lease);
        const attached = [...writer.keys].filter((key) => this.#keys.get(key)?.lease === operation.lease);
        if (attached.length > 0) this.#revision++;
        this.#delete(writer, attached);
        break;
      }
    }
  }

  #put(key: string, value: string, lease: bigint, revision: number): void {
    const before = this.#keys.get(key);
    this.#keys.set(key, {
      value,
      lease,
      modRevision: revision,
      createRevision: before?.createRevision ?? revision,
      version: (before?.version ?? 0) + 1,
    });
  }

  #delete(writer: Writer, keys: readonly string[]): void {
    for (const key of keys) {
      this.#keys.delete(key);
      writer.keys.delete(key);
    }
  }

  /**
   * Compares the whole store with the expectation; throws on the first loss, duplicate or partial write. Returns its
   * revision.
   */
  async verify(): Promise<number> {
    const { kvs, header } = await this.#client.unary(KVService.Range, {
      key: Buffer.from("w/"),
      rangeEnd: prefixEnd(Buffer.from("w/")),
    });
    const stored = new Map(kvs.map((kv) => [Buffer.from(kv.key).toString(), kv]));
    const { leases } = await this.#client.unary(LeaseService.LeaseLeases, {});
    const storedLeases = new Set(leases.map(({ id }) => id));
    for (const writer of this.#writers) this.#settle(writer, stored, storedLeases);

    const actual = new Map([...stored].map(([key, kv]) => [key, describe(kv)]));
    for (const [key, expected] of this.#keys) {
      assert.deepEqual(
        actual.get(key),
        expected,
        `the store's ${key} (actual) is not what was acknowledged (expected)`,
      );
    }
    assert.deepEqual(
      [...stored.keys()].filter((key) => !this.#keys.has(key)),
      [],
      "keys that were deleted or never put",
    );
    const expectedLeases = new Set(this.#writers.flatMap((writer) => [...writer.leases]));
    assert.deepEqual(storedLeases, expectedLeases, "leases in the store (actual) and acknowledged (expected)");
    assert.equal(header!.revision, this.#revision, "the store's revision (actual) counts every write once (expected)");
    return this.#revision;
  }

  /** Decides from the store whether the operation that a kill interrupted was applied. */
  #settle(writer: Writer, stored: ReadonlyMap<string, KeyValue>, leases: ReadonlySet<bigint>): void {
    const { pending } = writer;
    if (pending === undefined) return;
    writer.pending = undefined;
    this.open++;
    const applied = wasApplied(writer, pending, stored, leases);
    if (!applied) return;
    this.openApplied++;
    const key = pending.kind === "increment" || pending.kind === "put" ? pending.key : undefined;
    this.#apply(writer, pending, key === undefined ? 0 : (stored.get(key)?.modRevision ?? 0));
  }
}

class Writer {
  readonly id: number;
  readonly counterKey: string;
  readonly keys = new Set<string>();
  readonly leases = new Set<bigint>();
  counter = 0;
  pending: Operation | undefined;
  #sequence = 0;

  constructor(id: number) {
    this.id = id;
    this.counterKey = `w/${id}/counter`;
  }

  next(random: SeededRandom): Operation {
    const sequence = ++this.#sequence;
    const keys = [...this.keys].sort();
    const leases = [...this.leases];
    const value = `${sequence}:${"x".repeat(random.below(400))}`;
    const roll = random.below(100);
    if (keys.length >= KEYS_PER_WRITER_MAX || (roll < 15 && keys.length > 0)) {
      const from = random.below(keys.length);
      return { kind: "delete", keys: keys.slice(from, from + 1 + random.below(5)) };
    }
    if (roll < 20 && leases.length < LEASES_PER_WRITER_MAX) {
      return { kind: "grant", lease: BigInt(this.id + 1) * 1_000_000n + BigInt(sequence) };
    }
    if (roll < 23 && leases.length > 0) return { kind: "revoke", lease: random.pick(leases) };
    if (roll < 60) return { kind: "increment", from: this.counter, key: `w/${this.id}/k/${sequence}`, value };
    const key = keys.length > 0 && random.chance(0.4) ? random.pick(keys) : `w/${this.id}/k/${sequence}`;
    return { kind: "put", key, value, lease: leases.length > 0 && random.chance(0.5) ? random.pick(leases) : 0n };
  }
}

function wasApplied(
  writer: Writer,
  operation: Operation,
  stored: ReadonlyMap<string, KeyValue>,
  leases: ReadonlySet<bigint>,
): boolean {
  const textAt = (key: string) => Buffer.from(stored.get(key)?.value ?? []).toString();
  switch (operation.kind) {
    case "increment":
      return textAt(writer.counterKey) === String(operation.from + 1);
    case "put":
      return textAt(operation.key) === operation.value;
    case "delete":
      return !stored.has(operation.keys[0]!);
    case "grant":
      return leases.has(operation.lease);
    case "revoke":
      return !leases.has(operation.lease);
  }
}

function describe(kv: KeyValue): Expected {
  const { modRevision, createRevision, version, lease } = kv;
  return { value: Buffer.from(kv.value).toString(), lease, modRevision, createRevision, version };
}

function incrementTxn(writer: Writer, { from, key, value }: Extract<Operation, { kind: "increment" }>): TxnRequest {
  const counter = Buffer.from(writer.counterKey);
  const compare =
    from === 0
      ? Compare.create({ target: CompareTarget.VERSION, key: counter, version: 0 })
      : Compare.create({ target: CompareTarget.VALUE, key: counter, value: Buffer.from(String(from)) });
  const put = (name: Uint8Array, content: string) =>
    RequestOp.create({ requestPut: PutRequest.create({ key: name, value: Buffer.from(content) }) });
  return TxnRequest.create({
    compare: [compare],
    success: [put(counter, String(from + 1)), put(Buffer.from(key), value)],
  });
}

function deleteRequest(keys: readonly string[]): DeleteRangeRequest {
  const key = Buffer.from(keys[0]!);
  if (keys.length === 1) return DeleteRangeRequest.create({ key });
  return DeleteRangeRequest.create({ key, rangeEnd: Buffer.from(`${keys.at(-1)}\0`) });
}

const jsonBigint = (_name: string, value: unknown) => (typeof value === "bigint" ? `${value}` : value);
