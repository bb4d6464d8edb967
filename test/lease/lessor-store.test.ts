import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { nullLogger } from "../../src/base/log.ts";
import { Lessor } from "../../src/lease/lessor.ts";
import { fromByteString } from "../../src/mvcc/model/types.ts";
import { MvccStore } from "../../src/mvcc/store/store.ts";
import { MemoryBackend } from "../harness/memory-backend.ts";
import { VirtualClock } from "../harness/virtual-clock.ts";
import { BufferSink, describeDelivery, openHub, request, settled } from "../mvcc/watch-harness.ts";

interface Member {
  clock: VirtualClock;
  backend: MemoryBackend;
  lessor: Lessor;
  store: MvccStore;
}

async function open(clock: VirtualClock, backend: MemoryBackend): Promise<Member> {
  const lessor = new Lessor({ clock, backend, logger: nullLogger, minTtl: 1 });
  await settled(clock, lessor.recover(backend));
  const store = await settled(clock, MvccStore.open({ backend, clock, logger: nullLogger, leases: lessor }));
  return { clock, backend, lessor, store };
}

function put({ store }: Member, key: string, lease: bigint): void {
  const txn = store.begin();
  txn.put(fromByteString(key), Buffer.from("v"), lease);
  txn.end();
}

function revoke({ lessor, store }: Member, id: bigint): void {
  lessor.revoke(id, (keys) => {
    const txn = store.begin();
    for (const key of keys) txn.deleteKey(key);
    txn.end();
  });
}

function keysIn({ store }: Member): string[] {
  const all = { revision: 0, limit: 0, countOnly: false };
  return store.rangeDecoded(Buffer.from([0]), Buffer.from([0]), all).kvs.map(({ key }) => Buffer.from(key).toString());
}

describe("leases of a store", () => {
  it("delete their keys when they end, in order, in one revision that watchers see", async () => {
    const clock = new VirtualClock();
    const member = await open(clock, new MemoryBackend({ clock }));
    const { lessor, store } = member;
    lessor.grant(1n, 10);
    lessor.grant(2n, 10);
    for (const key of ["c", "a", "b", "x"]) put(member, key, 1n);
    put(member, "x", 2n);
    put(member, "y", 2n);
    put(member, "y", 0n);
    assert.deepEqual(lessor.keysOf(1n), ["a", "b", "c"]);
    assert.deepEqual(lessor.keysOf(2n), ["x"]);
    const sink = new BufferSink();
    openHub(store, clock)
      .newStream(sink)
      .watch(request("a", { end: "z" }));
    const before = store.currentRevision;
    revoke(member, 1n);
    const at = before + 1;
    assert.deepEqual(sink.buffer.map(describeDelivery), [`0@${at} a=DELETED@${at} b=DELETED@${at} c=DELETED@${at}`]);
    assert.deepEqual(keysIn(member), ["x", "y"]);
    revoke(member, 2n);
    assert.deepEqual(keysIn(member), ["y"]);
    assert.equal(lessor.count, 0);
  });

  it("without keys make no revision when they are revoked", async () => {
    const clock = new VirtualClock();
    const member = await open(clock, new MemoryBackend({ clock }));
    member.lessor.grant(1n, 10);
    const before = member.store.currentRevision;
    revoke(member, 1n);
    assert.equal(member.store.currentRevision, before);
  });

  it("get their keys back when the member restarts, and expire with them", async () => {
    const clock = new VirtualClock();
    const first = await open(clock, new MemoryBackend({ clock }));
    first.lessor.grant(1n, 10);
    first.lessor.grant(2n, 10);
    for (const key of ["a", "b", "c"]) put(first, key, 1n);
    put(first, "b", 2n);
    put(first, "c", 0n);
    await settled(clock, first.backend.commit());
    const second = await open(clock, new MemoryBackend({ clock, file: first.backend.crash() }));
    assert.deepEqual(second.lessor.keysOf(1n), ["a"]);
    assert.deepEqual(second.lessor.keysOf(2n), ["b"]);
    second.lessor.promote(1_000);
    clock.advance(11_200);
    for (const id of second.lessor.expired()) revoke(second, id);
    assert.deepEqual(keysIn(second), ["c"]);
  });

  it("follow a snapshot that replaces the store", async () => {
    const clock = new VirtualClock();
    const follower = await open(clock, new MemoryBackend({ clock }));
    follower.lessor.grant(1n, 10);
    put(follower, "old", 1n);
    const leader = await open(clock, new MemoryBackend({ clock }));
    leader.lessor.grant(2n, 10);
    put(leader, "new", 2n);
    await settled(clock, follower.lessor.recover(leader.backend));
    await settled(clock, follower.store.replaceBackend(leader.backend));
    assert.deepEqual(follower.lessor.leases(), [2n]);
    assert.deepEqual(follower.lessor.keysOf(2n), ["new"]);
    assert.equal(follower.lessor.leaseOf("old"), 0n);
  });
});
