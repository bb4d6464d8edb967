import assert from "node:assert/strict";
import { test } from "node:test";
import { DeleteRangeRequest, PutRequest, RangeRequest } from "../../src/proto/etcdserverpb.ts";
import type { Finding, Operation, OperationOutcome, Revision } from "./checkers/history.ts";
import { checkLeases, type LeaseLog } from "./checkers/lease.ts";
import { checkLinearizability } from "./checkers/linearizability.ts";
import { type Answer, KeySpace, type Kv, type KvRequest, type ModelEvent } from "./checkers/model.ts";
import { checkWatches, type WatchLog, type WatchStep } from "./checkers/watch.ts";

const kv = (key: string, value: string, mod: number, create = mod, version = 1, lease = 0n): Kv => ({
  key,
  value,
  create,
  mod,
  version,
  lease,
});
const put = (kv: Kv): ModelEvent => ({ key: kv.key, kv });
const gone = (key: string): ModelEvent => ({ key, kv: undefined });

/** Revisions from 2 on, seen at 20, 30, … */
const revisionsOf = (...all: ModelEvent[][]): Revision[] =>
  all.map((events, i) => ({ revision: i + 2, events, seen: (i + 2) * 10 }));

const putOf = (key: string, value: string, lease = 0n): KvRequest => ({
  kind: "put",
  request: PutRequest.create({ key: Buffer.from(key), value: Buffer.from(value), lease }),
});
const rangeOf = (key: string, revision = 0, serializable = false): KvRequest => ({
  kind: "range",
  request: RangeRequest.create({ key: Buffer.from(key), revision, serializable }),
});
const deleteOf = (key: string): KvRequest => ({
  kind: "delete",
  request: DeleteRangeRequest.create({ key: Buffer.from(key) }),
});

const ok = (revision: number, answer: Answer): OperationOutcome => ({ kind: "ok", revision, answer });
const wrote: Answer = { kind: "put", prev: undefined };
const read = (...kvs: Kv[]): Answer => ({ kind: "range", kvs, count: kvs.length, more: false });
const unknown: OperationOutcome = { kind: "unknown", error: "request timed out" };

let ids = 0;
const operation = (
  action: Operation["action"],
  [invoked, returned]: [number, number],
  outcome: OperationOutcome,
): Operation => ({ id: ids++, client: "c", member: "m", action, invoked, returned, outcome });

function linearize(operations: Operation[], revisions: Revision[], seenIsKnown = false): string[] {
  const { findings } = checkLinearizability({
    operations,
    revisions,
    seenIsKnown,
    isSerializable: ({ action }) => action.kind === "range" && action.request.serializable,
  });
  return messages(findings);
}

const messages = (findings: readonly Finding[]): string[] => findings.map(({ message }) => message);

function rejects(found: string[], pattern: RegExp): void {
  assert.equal(found.length, 1, found.join("\n"));
  assert.match(found[0]!, pattern);
}

const a1 = kv("a", "1", 2);
const a2 = kv("a", "2", 3, 2, 2);

test("a history in the order of its revisions is linearizable", () => {
  const found = linearize(
    [
      operation(putOf("a", "1"), [15, 25], ok(2, wrote)),
      operation(putOf("a", "2"), [25, 35], ok(3, wrote)),
      operation(rangeOf("a"), [36, 40], ok(3, read(a2))),
      operation(rangeOf("a", 2), [36, 40], ok(3, read(a1))),
    ],
    revisionsOf([put(a1)], [put(a2)]),
  );
  assert.deepEqual(found, []);
});

test("concurrent calls may see each other or not", () => {
  const revisions = revisionsOf([put(a1)], [put(a2)]);
  for (const [revision, seen] of [
    [2, a1],
    [3, a2],
  ] as const) {
    const found = linearize(
      [
        operation(putOf("a", "1"), [15, 25], ok(2, wrote)),
        operation(putOf("a", "2"), [26, 50], ok(3, wrote)),
        operation(rangeOf("a"), [27, 40], ok(revision, read(seen))),
      ],
      revisions,
    );
    assert.deepEqual(found, []);
  }
});

test("a read that misses an earlier acknowledged write is stale, unless it is serializable", () => {
  const history = (serializable: boolean): string[] =>
    linearize(
      [
        operation(putOf("a", "1"), [15, 25], ok(2, wrote)),
        operation(putOf("a", "2"), [25, 35], ok(3, wrote)),
        operation(rangeOf("a", 0, serializable), [36, 40], ok(2, read(a1))),
      ],
      revisionsOf([put(a1)], [put(a2)]),
    );
  rejects(history(false), /read revision 2, but 3 was known/);
  assert.deepEqual(history(true), []);
});

test("a read that misses what only another read has seen is stale", () => {
  const found = linearize(
    [
      operation(putOf("a", "1"), [15, 25], ok(2, wrote)),
      operation(putOf("a", "2"), [25, 100], unknown),
      operation(rangeOf("a"), [36, 40], ok(3, read(a2))),
      operation(rangeOf("a"), [41, 45], ok(2, read(a1))),
    ],
    revisionsOf([put(a1)], [put(a2)]),
  );
  rejects(found, /read revision 2, but 3 was known/);
});

test("a read that misses what a member had applied is stale where that is known", () => {
  const operations = [
    operation(putOf("a", "1"), [5, 25], ok(2, wrote)),
    operation(putOf("a", "2"), [15, 100], unknown),
    operation(rangeOf("a"), [36, 40], ok(2, read(a1))),
  ];
  const revisions = revisionsOf([put(a1)], [put(a2)]);
  assert.deepEqual(linearize(operations, revisions), []);
  rejects(linearize(operations, revisions, true), /read revision 2, but 3 was known/);
});

test("an answer that is not the state at its revision is found", () => {
  const found = linearize(
    [operation(putOf("a", "1"), [15, 25], ok(2, wrote)), operation(rangeOf("a"), [26, 40], ok(2, read()))],
    revisionsOf([put(a1)]),
  );
  rejects(found, /must answer range\(1: \[a=1@2\/2\/1\]\), but answered range\(0/);
});

test("an acknowledged write that no member has is lost", () => {
  rejects(
    linearize([operation(putOf("a", "1"), [15, 25], ok(2, wrote))], []),
    /acknowledged as revision 2, which no member has/,
  );
});

test("a write whose outcome is unknown may have taken effect, once, or not", () => {
  const attempt = operation(putOf("a", "1"), [15, 25], unknown);
  assert.deepEqual(linearize([attempt], []), []);
  assert.deepEqual(linearize([attempt], revisionsOf([put(a1)])), []);
  const again = { ...a1, mod: 3, version: 2 };
  rejects(linearize([attempt], revisionsOf([put(a1)], [put(again)])), /took effect twice/);
});

test("deletions of unknown outcome fill the gaps that they can, each one", () => {
  const revisions = revisionsOf([put(a1)], [gone("a")], [put(kv("a", "3", 4))], [gone("a")]);
  const puts = [operation(putOf("a", "1"), [15, 25], ok(2, wrote)), operation(putOf("a", "3"), [35, 45], ok(4, wrote))];
  const early = operation(deleteOf("a"), [26, 28], unknown);
  const late = operation(deleteOf("a"), [46, 48], unknown);
  assert.deepEqual(linearize([...puts, early, late], revisions), []);
  rejects(linearize([...puts, early], revisions), /took effect twice/);
  // It cannot have caused a revision that existed before it.
  assert.equal(linearize([...puts, late], revisions).length, 1);
});

test("the end of a lease and a deletion of unknown outcome share the gaps between them", () => {
  const leased = kv("a", "1", 2, 2, 1, 7n);
  const revisions = revisionsOf([put(leased)], [gone("a")], [put(kv("a", "3", 4))], [gone("a")]);
  const operations = [
    operation(putOf("a", "1", 7n), [15, 25], ok(2, wrote)),
    operation(putOf("a", "3"), [35, 45], ok(4, wrote)),
    operation(deleteOf("a"), [26, 28], unknown),
  ];
  assert.deepEqual(linearize(operations, revisions), []);
});

test("a refused write has no effect", () => {
  const refused = operation(putOf("a", "1"), [15, 25], { kind: "refused", error: "lease not found" });
  rejects(linearize([refused], revisionsOf([put(a1)])), /nothing that any client asked for makes revision 2/);
});

test("a write must not come before writes acknowledged before it began", () => {
  const found = linearize(
    [operation(putOf("a", "2"), [5, 50], ok(3, wrote)), operation(putOf("a", "1"), [51, 55], ok(2, wrote))],
    revisionsOf([put(a1)], [put(a2)]),
  );
  assert.ok(found.some((message) => /made revision 2, but 3 was known before it began/.test(message)));
});

test("the end of a lease deletes exactly its keys", () => {
  const leased = kv("a", "1", 2, 2, 1, 7n);
  const other = kv("b", "2", 3, 3, 1, 7n);
  const puts = [
    operation(putOf("a", "1", 7n), [15, 25], ok(2, wrote)),
    operation(putOf("b", "2", 7n), [26, 35], ok(3, wrote)),
  ];
  assert.deepEqual(linearize(puts, revisionsOf([put(leased)], [put(other)], [gone("a"), gone("b")])), []);
  rejects(
    linearize(puts, revisionsOf([put(leased)], [put(other)], [gone("a")])),
    /nothing that any client asked for makes revision 4/,
  );
});

test("a compacted revision is unavailable to later calls, and to none before", () => {
  const revisions = revisionsOf([put(a1)], [put(a2)]);
  const puts = [operation(putOf("a", "1"), [15, 25], ok(2, wrote)), operation(putOf("a", "2"), [26, 35], ok(3, wrote))];
  const compact = operation({ kind: "compact", revision: 3 }, [36, 38], { kind: "ok", revision: 3, answer: undefined });
  rejects(
    linearize([...puts, compact, operation(rangeOf("a", 2), [40, 45], ok(3, read(a1)))], revisions),
    /read revision 2 after .* was done/,
  );
  const refusal: OperationOutcome = { kind: "refused", error: "mvcc: required revision has been compacted" };
  rejects(linearize([...puts, operation(rangeOf("a", 2), [40, 45], refusal)], revisions), /which nobody asked for/);
  assert.deepEqual(linearize([...puts, compact, operation(rangeOf("a", 2), [40, 45], refusal)], revisions), []);
});

const history = revisionsOf([put(a1)], [put(a2), put(kv("b", "2", 3))], [gone("a")]);

function watch(steps: WatchStep[], log: Partial<WatchLog> = {}): string[] {
  const space = new KeySpace();
  for (const { events } of history) space.append(events);
  const whole = { id: 1, key: "a", end: "", prevKv: false, noPut: false, noDelete: false, steps, ...log };
  return messages(checkWatches({ watches: [whole], revisions: history, space, operations: [] }));
}

const created = (startRevision: number, revision = 4): WatchStep => ({
  kind: "created",
  startRevision,
  revision,
  moment: 1,
});
const events = (revision: number, ...list: [ModelEvent, number][]): WatchStep => ({
  kind: "events",
  revision,
  events: list.map(([event, mod]) => ({ ...event, mod, prev: undefined })),
  moment: 2,
});
const settled: WatchStep = { kind: "settled", moment: 9 };

test("a watch that gets every event once and in order keeps its promises", () => {
  assert.deepEqual(watch([created(2), events(2, [put(a1), 2]), events(4, [put(a2), 3], [gone("a"), 4]), settled]), []);
  assert.deepEqual(watch([created(0, 3), events(4, [gone("a"), 4]), settled]), []);
});

test("a watch that omits, repeats or swaps an event is found", () => {
  rejects(watch([created(2), events(3, [put(a2), 3])]), /from revision 2 it must get/);
  rejects(watch([created(2), events(2, [put(a1), 2]), events(2, [put(a1), 2])]), /from revision 3 it must get \[\]/);
  assert.ok(watch([created(2), events(3, [put(a2), 3], [put(a1), 2])]).length > 0);
  rejects(watch([created(2), events(2, [put(a1), 2]), settled]), /never got/);
});

test("a watch that gets half a revision is found", () => {
  const all = { key: "a", end: "\0" };
  rejects(watch([created(3), events(3, [put(a2), 3])], all), /from revision 3 it must get/);
});

test("progress before an event has come is found", () => {
  const progress: WatchStep = { kind: "progress", revision: 3, moment: 3 };
  rejects(watch([created(2), events(2, [put(a1), 2]), progress]), /told of progress to 3, but it lacks/);
  assert.deepEqual(watch([created(3), events(3, [put(a2), 3]), progress, events(4, [gone("a"), 4])]), []);
  rejects(watch([created(4), progress]), /told of progress to 3 before its start at 4/);
});

test("a watch that resumes elsewhere gets the missing events and none again", () => {
  assert.deepEqual(
    watch([created(2), events(2, [put(a1), 2]), created(3), events(4, [put(a2), 3], [gone("a"), 4]), settled]),
    [],
  );
});

test("a watch cancelled for a compaction that was never requested is found", () => {
  assert.ok(watch([created(2), { kind: "compacted", compactRevision: 3, moment: 4 }]).length > 0);
});

const lease = (changes: Partial<LeaseLog> = {}): LeaseLog => ({
  id: 7n,
  ttl: 5,
  grantInvoked: 1,
  grantInvokedMs: 1000,
  grantReturned: 2,
  renewals: [],
  revokeInvoked: Number.POSITIVE_INFINITY,
  missing: [],
  ...changes,
});

const leases = (log: LeaseLog, endedMs: number): string[] =>
  messages(
    checkLeases({
      leases: [log],
      ends: [{ lease: 7n, revision: 5, seen: 50, seenMs: endedMs }],
      left: [],
      endMs: 100_000,
      graceMs: 1000,
    }),
  );

test("a lease ends after its time, counted from its last renewal", () => {
  assert.deepEqual(leases(lease(), 6000), []);
  rejects(leases(lease(), 5999), /1 ms before its time/);
  const renewed = lease({ renewals: [{ invokedMs: 4000, returned: 20, ttl: 5 }] });
  rejects(leases(renewed, 6000), /3000 ms before its time/);
  assert.deepEqual(leases(lease({ revokeInvoked: 10 }), 2000), []);
});

test("a lease that outlives its time is found", () => {
  const found = checkLeases({
    leases: [lease()],
    ends: [],
    left: [{ id: 7n, member: "m0" }],
    endMs: 10_000,
    graceMs: 1000,
  });
  rejects(messages(found), /still at member m0 4000 ms after its time/);
});
