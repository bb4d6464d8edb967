import assert from "node:assert/strict";
import { test } from "node:test";
import { AuthInfo } from "../../../src/auth/auth-info.ts";
import { Code } from "../../../src/base/grpc-codes.ts";
import {
  CompactionRequest,
  InternalRaftRequest,
  LeaseCheckpointRequest,
  PutRequest,
} from "../../../src/proto/etcdserverpb.ts";
import { ClusterVersionSetRequest } from "../../../src/proto/membershippb.ts";
import { EtcdError, errors } from "../../../src/server/contract/errors.ts";
import { Op } from "../../../src/server/log/op.ts";
import { InternalProposal, type QueuedProposal } from "../../../src/server/log/proposal.ts";
import { ProposalQueue } from "../../../src/server/log/proposal-queue.ts";
import { RequestIdGenerator } from "../../../src/server/log/request-id.ts";
import { put } from "../requests.ts";

const MEMBER_ID = 0x8e9e05c52164694dn;
const WALL_MS = 1_700_000_000_000;

function queueOf(memberId = MEMBER_ID, wallMs = WALL_MS): ProposalQueue {
  return new ProposalQueue(new RequestIdGenerator(memberId, wallMs));
}

function proposalOf(name: string, log: string[] = [], sinceMs = 0): QueuedProposal {
  const request = put(name, "v");
  const proposal = new InternalProposal(Op.PUT, request, PutRequest.encode(request), (outcome) =>
    log.push(`${name}: ${outcome}`),
  );
  proposal.sinceMs = sinceMs;
  return proposal;
}

/** Represents an outcome here. */
const done = new EtcdError(Code.UNKNOWN, "done");

test("a proposal decodes to the request with its header, and has the predicted size", () => {
  for (const [memberId, wallMs] of [
    [MEMBER_ID, WALL_MS],
    [1n, 1],
    [0x1234ffffn, 2 ** 40 - 1],
    [0n, 0],
  ] as const) {
    const queue = queueOf(memberId, wallMs);
    const ids = new RequestIdGenerator(memberId, wallMs);
    let index = 0;
    for (const size of [0, 1, 127, 128, 5000]) {
      const request = PutRequest.create({ key: Buffer.alloc(size, 1), value: Buffer.alloc(size), lease: 99n });
      const proposal = new InternalProposal(Op.PUT, request, PutRequest.encode(request), () => {});
      queue.add(proposal);
      const told = queue.sizeOf(proposal);
      const [entry] = queue.encodeWaiting();
      queue.proposed(++index, 1);
      const id = ids.nextBig();
      assert.deepEqual(Buffer.from(entry!), InternalRaftRequest.encode(InternalRaftRequest.decode(entry!)));
      const decoded = InternalRaftRequest.decode(entry!);
      assert.deepEqual(decoded.put, request);
      assert.equal(decoded.header!.id, id);
      if (memberId === MEMBER_ID) assert.equal(entry!.length, told);
    }
  }
});

test("a proposal behind others that lost their positions in an earlier term is found", () => {
  const queue = queueOf();
  const log: string[] = [];
  const propose = (name: string, index: number, term: number): void => {
    queue.add(proposalOf(name, log));
    queue.encodeWaiting();
    queue.proposed(index, term);
  };
  for (const [name, index] of [
    ["a", 10],
    ["b", 11],
    ["c", 12],
  ] as const)
    propose(name, index, 1);
  // Another leader's log ends at 9, and this member is leader again after it.
  propose("d", 11, 3);
  assert.equal(queue.take(10, 3, errors.leaderChanged), undefined);
  const lost = ["a", "b", "c"].map((name) => `${name}: ${errors.leaderChanged}`);
  assert.deepEqual(log, lost);
  assert.equal(queue.take(11, 3, errors.leaderChanged)?.index, 11);
  assert.deepEqual(log, lost);
});

test("proposals that would be in the log before others of their term are a bug", () => {
  const queue = queueOf();
  for (const index of [5, 5]) {
    queue.add(proposalOf("a"));
    queue.encodeWaiting();
    if (queue.pendingCount === 1) queue.proposed(index, 1);
    else assert.throws(() => queue.proposed(index, 1), { name: "InvariantError" });
  }
});

test("requests whose field comes after the header are encoded in that order", () => {
  const queue = queueOf();
  const version = ClusterVersionSetRequest.create({ ver: "3.7.0" });
  queue.add(new InternalProposal(Op.CLUSTER_VERSION_SET, version, ClusterVersionSetRequest.encode(version), () => {}));
  const [entry] = queue.encodeWaiting();
  const decoded = InternalRaftRequest.decode(entry!);
  assert.equal(decoded.clusterVersionSet!.ver, "3.7.0");
  assert.deepEqual(Buffer.from(entry!), InternalRaftRequest.encode(decoded));
});

test("the user is in the header, however long the name, and counts for the size", () => {
  const queue = queueOf();
  const users = ["a", "anna", "x".repeat(108), "x".repeat(113), "x".repeat(200), "ü".repeat(9000)];
  const proposals = users.map((name, i) => {
    const proposal = proposalOf(`key${i}`);
    proposal.user = new AuthInfo(name, 2 ** (6 * i) + i);
    queue.add(proposal);
    return proposal;
  });
  const sizes = proposals.map((proposal) => queue.sizeOf(proposal));
  const entries = queue.encodeWaiting();
  for (const [i, name] of users.entries()) {
    const decoded = InternalRaftRequest.decode(entries[i]!);
    assert.equal(decoded.header!.username, name);
    assert.equal(decoded.header!.authRevision, 2 ** (6 * i) + i);
    assert.equal(String(decoded.put!.key), `key${i}`);
    assert.deepEqual(Buffer.from(entries[i]!), InternalRaftRequest.encode(decoded));
    assert.equal(entries[i]!.length, sizes[i]);
  }
});

test("empty requests are encoded too", () => {
  const queue = queueOf();
  const compaction = CompactionRequest.create();
  queue.add(new InternalProposal(Op.COMPACTION, compaction, CompactionRequest.encode(compaction), () => {}));
  const checkpoint = LeaseCheckpointRequest.create();
  queue.add(new InternalProposal(Op.LEASE_CHECKPOINT, checkpoint, LeaseCheckpointRequest.encode(checkpoint), () => {}));
  const [first, second] = queue.encodeWaiting().map((entry) => InternalRaftRequest.decode(entry));
  assert.deepEqual(first!.compaction, compaction);
  assert.deepEqual(second!.leaseCheckpoint, checkpoint);
});

test("each request gets its own id, also across restarts", () => {
  const first = new RequestIdGenerator(MEMBER_ID, WALL_MS);
  const restarted = new RequestIdGenerator(MEMBER_ID, WALL_MS + 1);
  const seen = new Set<bigint>();
  for (let i = 0; i < 200; i++) {
    seen.add(first.nextBig());
    seen.add(restarted.nextBig());
  }
  assert.equal(seen.size, 400);
  assert.ok([...seen].every((id) => id >> 48n === (MEMBER_ID & 0xffffn)));
});

test("a proposal is found by its log position", () => {
  const log: string[] = [];
  const queue = queueOf();
  for (const name of ["a", "b", "c"]) queue.add(proposalOf(name, log));
  queue.encodeWaiting();
  queue.proposed(12, 3);
  assert.deepEqual([queue.waitingCount, queue.pendingCount], [0, 3]);
  assert.equal(queue.take(9, 3, errors.leaderChanged), undefined, "an entry of someone else before ours");
  queue.take(10, 3, errors.leaderChanged)!.refuse(done);
  queue.take(11, 3, errors.leaderChanged)!.refuse(done);
  queue.take(12, 3, errors.leaderChanged)!.refuse(done);
  assert.deepEqual(log, ["a: done", "b: done", "c: done"]);
  assert.equal(queue.pendingCount, 0);
  assert.equal(queue.take(13, 3, errors.leaderChanged), undefined);
});

test("a proposal whose position went to another leader's entry is refused, as are those after it", () => {
  const log: string[] = [];
  const queue = queueOf();
  for (const name of ["a", "b", "c"]) queue.add(proposalOf(name, log));
  queue.encodeWaiting();
  queue.proposed(12, 3);
  queue.take(10, 3, errors.leaderChanged)!.refuse(done);
  assert.equal(queue.take(11, 4, errors.leaderChanged), undefined);
  assert.equal(queue.take(13, 4, errors.leaderChanged), undefined);
  assert.deepEqual(log, ["a: done", "b: etcdserver: leader changed", "c: etcdserver: leader changed"]);
});

test("batches that are proposed while earlier ones are in the log keep their order", () => {
  const log: string[] = [];
  const queue = queueOf();
  queue.add(proposalOf("a", log));
  queue.add(proposalOf("b", log));
  queue.encodeWaiting();
  queue.proposed(2, 1);
  queue.take(1, 1, errors.leaderChanged)!.refuse(done);
  queue.add(proposalOf("c", log));
  queue.encodeWaiting();
  queue.proposed(3, 1);
  assert.equal(queue.pendingCount, 2);
  for (const index of [2, 3]) queue.take(index, 1, errors.leaderChanged)!.refuse(done);
  assert.deepEqual(log, ["a: done", "b: done", "c: done"]);
});

test("a proposal that waited too long is refused, and is not proposed any more", () => {
  const log: string[] = [];
  const queue = queueOf();
  queue.add(proposalOf("old", log, 10));
  queue.add(proposalOf("new", log, 20));
  queue.expire(15, () => errors.timeout);
  assert.deepEqual(log, ["old: etcdserver: request timed out"]);
  assert.equal(queue.waitingCount, 1);
  const [entry] = queue.encodeWaiting();
  assert.equal(Buffer.from(InternalRaftRequest.decode(entry!).put!.key).toString(), "new");
});

test("one in the log that took too long is answered once, but keeps its position", () => {
  const log: string[] = [];
  const queue = queueOf();
  queue.add(proposalOf("a", log, 10));
  queue.add(proposalOf("b", log, 20));
  queue.encodeWaiting();
  queue.proposed(2, 1);
  queue.expire(15, () => errors.timeout);
  queue.expire(15, () => errors.timeout);
  const late = queue.take(1, 1, errors.leaderChanged)!;
  assert.equal(late.answered, true);
  late.refuse(done);
  queue.take(2, 1, errors.leaderChanged)!.refuse(done);
  assert.deepEqual(log, ["a: etcdserver: request timed out", "b: done"]);
});

test("at the end everything is refused, in any state", () => {
  const log: string[] = [];
  const queue = queueOf();
  queue.add(proposalOf("in log", log));
  queue.encodeWaiting();
  queue.proposed(1, 1);
  queue.add(proposalOf("waiting", log));
  queue.clear(errors.stopped);
  assert.deepEqual(log, ["in log: etcdserver: server stopped", "waiting: etcdserver: server stopped"]);
  assert.equal(queue.pendingCount, 0);
});

test("it is full at its limit of unanswered requests, and accepts more when they are answered", () => {
  const queue = queueOf();
  const request = put("a");
  const payload = PutRequest.encode(request);
  while (!queue.full) queue.add(new InternalProposal(Op.PUT, request, payload, () => {}));
  assert.equal(queue.waitingCount, 100_000);
  for (let last = 0; queue.waitingCount > 0; ) {
    last += queue.encodeWaiting().length;
    queue.proposed(last, 1);
  }
  assert.equal(queue.full, true);
  queue.take(1, 1, errors.leaderChanged);
  assert.equal(queue.full, false);
});

test("it is full at its limit of bytes", () => {
  const queue = queueOf();
  const request = put("a");
  const payload = Buffer.alloc(1024 * 1024);
  while (!queue.full) queue.add(new InternalProposal(Op.PUT, request, payload, () => {}));
  assert.equal(queue.waitingCount, 512);
  queue.expire(Number.POSITIVE_INFINITY, () => errors.timeout);
  assert.equal(queue.full, false);
});

test("a leader's own proposals are refused when it is no longer leader in that term", () => {
  const log: string[] = [];
  const queue = queueOf();
  const bound = (name: string, term: number): void => {
    const proposal = proposalOf(name, log);
    proposal.leaderTerm = term;
    queue.add(proposal);
  };
  bound("old", 2);
  queue.add(proposalOf("client", log));
  bound("present", 3);
  queue.refuseOutdated(3, errors.leaderChanged);
  assert.deepEqual(log, ["old: etcdserver: leader changed"]);
  assert.equal(queue.waitingCount, 2);
  queue.refuseOutdated(0, errors.leaderChanged);
  assert.deepEqual(log, ["old: etcdserver: leader changed", "present: etcdserver: leader changed"]);
  assert.equal(queue.encodeWaiting().length, 1);
});

test("very many proposals go into the log in batches, in order, and none is lost or answered twice", () => {
  const log: string[] = [];
  const queue = queueOf();
  const names = Array.from({ length: 2500 }, (_, i) => `p${i}`);
  for (const name of names) queue.add(proposalOf(name, log));
  const sizes: number[] = [];
  let lastIndex = 0;
  while (queue.waitingCount > 0) {
    const batch = queue.encodeWaiting();
    const first = InternalRaftRequest.decode(batch[0]!).put!;
    assert.equal(Buffer.from(first.key).toString(), names[lastIndex]);
    sizes.push(batch.length);
    lastIndex += batch.length;
    queue.proposed(lastIndex, 1);
  }
  assert.deepEqual(sizes, [1024, 1024, 452]);
  for (let index = 1; index <= lastIndex; index++) queue.take(index, 1, errors.leaderChanged)!.refuse(done);
  assert.deepEqual(
    log,
    names.map((name) => `${name}: done`),
  );
  assert.equal(queue.pendingCount, 0);
});

test("a batch has few proposals when they are large", () => {
  const queue = queueOf();
  const value = Buffer.alloc(1024 * 1024);
  for (let i = 0; i < 6; i++) {
    const request = PutRequest.create({ key: Buffer.from(`k${i}`), value });
    queue.add(new InternalProposal(Op.PUT, request, PutRequest.encode(request), () => {}));
  }
  assert.equal(queue.encodeWaiting().length, 4);
  queue.forwarded();
  assert.deepEqual([queue.waitingCount, queue.pendingCount], [2, 6]);
  assert.equal(queue.encodeWaiting().length, 2);
});
