/**
 * Client operations on a cluster: writes, watches, leases, compaction. Each function uses every given member, and
 * throws unless all show the same result.
 */
import assert from "node:assert/strict";
import { type RawClient, RpcError } from "../../src/client/raw.ts";
import {
  KVService,
  LeaseKeepAliveRequest,
  LeaseService,
  PutRequest,
  type RangeResponse,
  RequestOp,
  WatchCreateRequest,
  WatchService,
} from "../../src/proto/etcdserverpb.ts";
import { Event_EventType as EventType } from "../../src/proto/mvccpb.ts";
import type { Member } from "./cluster.ts";
import { patience, waitFor } from "./wait.ts";

const CALL = { timeoutMs: patience(10_000) };
const bytes = (text: string) => Buffer.from(text);

export async function put(client: RawClient, key: string, value: string, lease = 0n): Promise<number> {
  const { header } = await client.unary(KVService.Put, { key: bytes(key), value: bytes(value), lease }, CALL);
  return header!.revision;
}

/** A put that is retried while there is no leader or it just changed; repeating it is harmless. */
export async function putAnyway(client: RawClient, key: string, value: string): Promise<void> {
  const tried = async () => {
    const { header } = await client.unary(
      KVService.Put,
      { key: bytes(key), value: bytes(value) },
      { timeoutMs: 2_000 },
    );
    return header;
  };
  await waitFor(`${key} is put`, () => tried().catch(() => undefined), 20_000);
}

/** Value of a key by a linearizable read; undefined when there is none. */
export async function get(client: RawClient, key: string): Promise<string | undefined> {
  const { kvs } = await client.unary(KVService.Range, { key: bytes(key) }, CALL);
  return kvs[0] === undefined ? undefined : Buffer.from(kvs[0].value).toString();
}

/** Many puts, a hundred in flight. */
export async function putMany(client: RawClient, prefix: string, count: number, valueSize = 16): Promise<void> {
  const UNDER_WAY = 100;
  let next = 0;
  const worker = async () => {
    for (let i = next++; i < count; i = next++) await put(client, `${prefix}${i}`, "v".repeat(valueSize));
  };
  await Promise.all(Array.from({ length: UNDER_WAY }, worker));
}

let rounds = 0;

/** Every member takes a put, a transaction and a delete; every member immediately reads what the others took. */
export async function writeEverywhere(members: readonly Member[]): Promise<void> {
  const round = ++rounds;
  for (const writer of members) {
    const key = `traffic/${round}/${writer.name}`;
    const where = (reader: Member) => `written through ${writer}, read through ${reader}`;
    await put(writer.client, key, "first");
    for (const reader of members) assert.equal(await get(reader.client, key), "first", where(reader));
    const success = [
      RequestOp.create({ requestPut: PutRequest.create({ key: bytes(key), value: bytes("second") }) }),
      RequestOp.create({ requestPut: PutRequest.create({ key: bytes(`${key}/more`), value: bytes("x") }) }),
    ];
    await writer.client.unary(KVService.Txn, { success }, CALL);
    for (const reader of members) assert.equal(await get(reader.client, key), "second", where(reader));
    await writer.client.unary(KVService.DeleteRange, { key: bytes(key) }, CALL);
    for (const reader of members) assert.equal(await get(reader.client, key), undefined, where(reader));
  }
}

/** A watcher on every member, writes through every member: all receive the same events in the same order. */
export async function watchEverywhere(members: readonly Member[]): Promise<void> {
  const prefix = `watch/${++rounds}/`;
  const WRITES_EACH = 5;
  const expected = members.length * WRITES_EACH * 2;
  const created = { key: bytes(prefix), rangeEnd: bytes(`${prefix.slice(0, -1)}0`) };
  const streams = members.map((member) => member.client.stream(WatchService.Watch, { timeoutMs: patience(30_000) }));
  const seen = streams.map((): string[] => []);
  let watching = 0;
  const watched = streams.map(async (stream, i) => {
    await stream.send({ createRequest: WatchCreateRequest.create(created) });
    for await (const response of stream) {
      if (response.created) watching++;
      assert.ok(!response.canceled, `${members[i]} cancelled the watch: ${response.cancelReason}`);
      for (const { type, kv } of response.events) {
        const what = type === EventType.PUT ? `put ${Buffer.from(kv!.value)}` : "delete";
        seen[i]!.push(`${kv!.modRevision} ${Buffer.from(kv!.key)} ${what}`);
      }
      if (seen[i]!.length >= expected) break;
    }
  });
  const failed = Promise.all(watched);
  await Promise.race([failed, waitFor("every member watches", () => watching === members.length)]);
  await Promise.all(
    members.map(async (member) => {
      for (let i = 0; i < WRITES_EACH; i++) {
        const key = `${prefix}${member.name}/${i}`;
        await put(member.client, key, String(i));
        await member.client.unary(KVService.DeleteRange, { key: bytes(key) }, CALL);
      }
    }),
  );
  await failed;
  for (const [i, events] of seen.entries()) {
    assert.equal(events.length, expected, `events seen by ${members[i]}`);
    assert.deepEqual(events, seen[0], `${members[i]} and ${members[0]} see the same events`);
  }
}

const TTL_SECONDS = 3;

/**
 * A lease is granted through one member, its key put through another, and kept alive through each for longer than its
 * TTL; then it expires on all of them, not before its TTL has passed.
 */
export async function leaseEverywhere(members: readonly Member[]): Promise<void> {
  const key = `lease/${++rounds}`;
  const [first, second = first] = members as readonly [Member, Member?];
  const { id } = await first.client.unary(LeaseService.LeaseGrant, { ttl: TTL_SECONDS }, CALL);
  await put(second.client, key, "held", id);
  const begun = performance.now();
  let keptAt = begun;
  for (let i = 0; performance.now() - begun < 1.5 * TTL_SECONDS * 1000; i++) {
    const member = members[i % members.length]!;
    keptAt = performance.now();
    assert.equal(await keepAlive(member.client, id), TTL_SECONDS, `kept alive through ${member}`);
    await new Promise((resolve) => setTimeout(resolve, 300));
  }
  for (const member of members) {
    const answer = await member.client.unary(LeaseService.LeaseTimeToLive, { id, keys: true }, CALL);
    assert.equal(answer.grantedTtl, TTL_SECONDS, `granted TTL told by ${member}`);
    assert.ok(answer.ttl > 0 && answer.ttl <= TTL_SECONDS, `TTL told by ${member}: ${answer.ttl}`);
    assert.deepEqual(
      answer.keys.map((each) => Buffer.from(each).toString()),
      [key],
      `keys told by ${member}`,
    );
    assert.equal(await get(member.client, key), "held");
  }
  const expired = async () => (await get(first.client, key)) === undefined;
  await waitFor("the lease expires", expired, 4 * TTL_SECONDS * 1000);
  const lived = performance.now() - keptAt;
  assert.ok(lived > (TTL_SECONDS - 1) * 1000, `the lease was gone ${Math.round(lived)} ms after it was kept alive`);
  for (const member of members) {
    assert.equal(await get(member.client, key), undefined, `${member} lost the key with the lease`);
    assert.equal((await member.client.unary(LeaseService.LeaseTimeToLive, { id }, CALL)).ttl, -1);
    assert.equal(await keepAlive(member.client, id), 0, `${member} knows that the lease is gone`);
  }
}

/** TTL in the answer; 0 when there is no such lease. */
async function keepAlive(client: RawClient, id: bigint): Promise<number> {
  const stream = client.stream(LeaseService.LeaseKeepAlive, CALL);
  await stream.send(LeaseKeepAliveRequest.create({ id }));
  for await (const { ttl } of stream) return ttl;
  throw new Error("the keep-alive ended without an answer");
}

/** A compaction through one member takes effect on all: earlier revisions are refused, the hash starts at it. */
export async function compactThrough(compactor: Member, members: readonly Member[]): Promise<number> {
  const key = `compact/${++rounds}`;
  for (let i = 0; i < 10; i++) await put(compactor.client, key, String(i));
  const revision = (await put(compactor.client, key, "last")) - 2;
  await compactor.client.unary(KVService.Compact, { revision, physical: true }, CALL);
  for (const member of members) {
    const at = (asked: number): Promise<RangeResponse> =>
      member.client.unary(KVService.Range, { key: bytes(key), revision: asked }, CALL);
    const refused = await at(revision - 1).catch((error: unknown) => error);
    assert.ok(refused instanceof RpcError && /has been compacted/.test(refused.details), `${member}: ${refused}`);
    assert.equal(
      Buffer.from((await at(revision)).kvs[0]!.value).toString(),
      "8",
      `the compacted revision on ${member}`,
    );
  }
  return revision;
}
