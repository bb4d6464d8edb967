import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { varintSize, writeVarint } from "../../../src/base/varint.ts";
import { WatchBatch, WatchEvent } from "../../../src/mvcc/watch/batch.ts";
import { WatchResponseEncoder } from "../../../src/mvcc/watch/encoding.ts";
import { WatchResponse } from "../../../src/proto/etcdserverpb.ts";
import { Event, KeyValue } from "../../../src/proto/mvccpb.ts";
import { seeded } from "../../harness/random.ts";

const CLUSTER_ID = 0xcdf818194e3a8c32n;
const MEMBER_ID = 0x8e9e05c52164694dn;
const encoder = new WatchResponseEncoder(CLUSTER_ID, MEMBER_ID);

/** Random events in order of revision, in the hub's form and as messages. */
function randomEvents(seed: number, count: number): { shared: WatchEvent[]; messages: Event[]; withPrev: Event[] } {
  const random = seeded(seed);
  const bytes = (most: number) => Buffer.from(Array.from({ length: 1 + random.below(most) }, () => random.below(256)));
  const shared: WatchEvent[] = [];
  const messages: Event[] = [];
  const withPrev: Event[] = [];
  let revision = random.pick([2, 120, 16_380, 2 ** 31, 2 ** 40]);
  for (let i = 0; i < count; i++) {
    revision += random.below(3);
    const key = bytes(300);
    const tombstone = random.chance(0.3);
    const isCreation = !tombstone && random.chance(0.5);
    const previous = KeyValue.create({ key, value: bytes(20), createRevision: 1, modRevision: 1, version: 1 });
    const kv = tombstone
      ? KeyValue.create({ key, modRevision: revision })
      : KeyValue.create({
          key,
          createRevision: isCreation ? revision : 1,
          modRevision: revision,
          version: isCreation ? 1 : 2,
          value: bytes(500),
          lease: random.chance(0.2) ? 7587862032845443846n : 0n,
        });
    const stored = KeyValue.encode(tombstone ? KeyValue.create({ key }) : kv);
    const padded = Buffer.concat([Buffer.from([1, 2, 3]), stored, Buffer.from([4])]);
    const name = key.toString("latin1");
    const lookup = (asked: string, at: number) => {
      assert.equal(asked, name);
      assert.equal(at, kv.modRevision - 1);
      assert.ok(!isCreation, "a created key has no previous value to look for");
      return KeyValue.encode(previous);
    };
    shared.push(new WatchEvent(name, revision, tombstone, padded, 3, 3 + stored.length, lookup));
    messages.push(Event.create({ type: tombstone ? 1 : 0, kv }));
    withPrev.push(Event.create({ type: tombstone ? 1 : 0, kv, prevKv: isCreation ? undefined : previous }));
  }
  return { shared, messages, withPrev };
}

function expected(revision: number, watchId: number, term: number, events: Event[], fragment = false): WatchResponse {
  const header = { clusterId: CLUSTER_ID, memberId: MEMBER_ID, revision, raftTerm: term };
  return WatchResponse.create({ header, watchId, events, fragment });
}

describe("encoding a watch response", () => {
  it("gives the bytes of the generated codec", () => {
    for (let seed = 1; seed <= 200; seed++) {
      const random = seeded(seed);
      const { shared, messages, withPrev } = randomEvents(seed, 1 + random.below(12));
      const watchId = random.pick([0, 1, 127, 128, 70_000, 2 ** 33, -1, -77]);
      const term = random.pick([0, 2, 300, 2 ** 35]);
      const revision = shared.at(-1)!.revision + random.below(2);
      for (const prevKv of [false, true]) {
        const batch = new WatchBatch(revision, shared, prevKv);
        const wanted = expected(revision, watchId, term, prevKv ? withPrev : messages);
        const encoded = encoder.encodeEvents(batch, watchId, term);
        assert.deepEqual(encoded, WatchResponse.encode(wanted));
        const space = Buffer.alloc(encoded.length + 10);
        assert.equal(encoder.eventsSize(batch, watchId, term), encoded.length);
        assert.equal(encoder.writeEvents(space, 7, batch, watchId, term), 7 + encoded.length);
        assert.deepEqual(space.subarray(7, 7 + encoded.length), encoded);
        assert.deepEqual(WatchResponse.decode(encoded), WatchResponse.decode(WatchResponse.encode(wanted)));
        assert.deepEqual(
          batch.decodedEvents().map((event) => Event.encode(event)),
          wanted.events.map((event) => Event.encode(event)),
        );
      }
    }
  });

  it("shares the bytes between watchers with equal ids, and makes new ones for another id or term", () => {
    const batch = new WatchBatch(9, randomEvents(1, 1).shared, false);
    const first = encoder.encodeEvents(batch, 0, 2);
    assert.equal(encoder.encodeEvents(batch, 0, 2), first);
    assert.equal(WatchResponse.decode(encoder.encodeEvents(batch, 5, 2)).watchId, 5);
    assert.equal(WatchResponse.decode(encoder.encodeEvents(batch, 5, 3)).header!.raftTerm, 3);
    assert.deepEqual(encoder.encodeEvents(batch, 0, 2), first);
  });

  it("makes control responses with the header of the member", () => {
    assert.deepEqual(
      WatchResponse.decode(encoder.encodeCompacted(4, 100, 2)),
      WatchResponse.create({ ...expected(0, 4, 2, []), canceled: true, compactRevision: 100 }),
    );
    assert.deepEqual(WatchResponse.decode(encoder.encodeProgress(-1, 55, 2)), expected(55, -1, 2, []));
    assert.deepEqual(
      WatchResponse.decode(encoder.encodeControl(55, 2, { watchId: 3, created: true })),
      WatchResponse.create({ ...expected(55, 3, 2, []), created: true }),
    );
    for (const id of [0, 3, 70_000, -7]) {
      assert.deepEqual(
        encoder.encodeCreated(id, 55, 2),
        WatchResponse.encode(WatchResponse.create({ ...expected(55, id, 2, []), created: true })),
      );
      assert.deepEqual(
        encoder.encodeCanceled(id, 55, 2),
        WatchResponse.encode(WatchResponse.create({ ...expected(55, id, 2, []), canceled: true })),
      );
      assert.deepEqual(encoder.encodeProgress(id, 55, 2), WatchResponse.encode(expected(55, id, 2, [])));
    }
  });

  it("writes varints as the codec reads them", () => {
    for (const value of [
      0,
      1,
      127,
      128,
      2 ** 31 - 1,
      2 ** 31,
      2 ** 32,
      2 ** 35 + 17,
      2 ** 49 + 3,
      2 ** 53 - 1,
      -1,
      -300,
    ]) {
      const field = Buffer.alloc(1 + varintSize(value));
      field[0] = 0x10;
      assert.equal(writeVarint(field, 1, value), field.length);
      assert.equal(WatchResponse.decode(field).watchId, value);
    }
  });
});

describe("fragmenting a watch response", () => {
  /** The rule of etcd's sendFragments, on messages. */
  function fragments(whole: WatchResponse, bytesMax: number): WatchResponse[] {
    if (WatchResponse.encode(whole).length < bytesMax || whole.events.length < 2) return [whole];
    const parts: WatchResponse[] = [];
    let index = 0;
    while (parts.length === 0 || parts.at(-1)!.fragment) {
      const part = WatchResponse.create({ ...whole, fragment: true, events: [] });
      for (const event of whole.events.slice(index)) {
        part.events.push(event);
        if (part.events.length > 1 && WatchResponse.encode(part).length >= bytesMax) {
          part.events.pop();
          break;
        }
        index++;
      }
      if (index === whole.events.length) part.fragment = false;
      parts.push(part);
    }
    return parts;
  }

  function fragmentsOf(batch: WatchBatch, watchId: number, term: number, bytesMax: number): Buffer[] {
    const made: Buffer[] = [];
    encoder.forEachFragment(batch, watchId, term, bytesMax, (prefix, events) => {
      made.push(Buffer.concat([prefix, events]));
    });
    return made;
  }

  it("splits where etcd splits", () => {
    let split = 0;
    for (let seed = 1; seed <= 200; seed++) {
      const random = seeded(seed + 1_000);
      const { shared, messages, withPrev } = randomEvents(seed, 1 + random.below(30));
      const revision = shared.at(-1)!.revision;
      const bytesMax = random.pick([1, 60, 500, 1_000, 3_000, 10_000]) + random.below(50);
      const prevKv = random.chance(0.5);
      const whole = expected(revision, 3, 2, prevKv ? withPrev : messages);
      const wanted = fragments(whole, bytesMax);
      const made = fragmentsOf(new WatchBatch(revision, shared, prevKv), 3, 2, bytesMax);
      assert.deepEqual(
        made,
        wanted.map((part) => WatchResponse.encode(part)),
        `seed ${seed}`,
      );
      if (made.length > 1) split++;
    }
    assert.ok(split > 50);
  });

  it("splits exactly at the limit as etcd does", () => {
    const { shared, messages } = randomEvents(5, 6);
    const whole = expected(9, 0, 2, messages);
    const batch = new WatchBatch(9, shared, false);
    const size = WatchResponse.encode(whole).length;
    for (let bytesMax = 1; bytesMax <= size + 3; bytesMax++) {
      const wanted = fragments(whole, bytesMax).map((part) => WatchResponse.encode(part));
      assert.deepEqual(fragmentsOf(batch, 0, 2, bytesMax), wanted, `limit ${bytesMax} of ${size}`);
    }
  });
});
