import assert from "node:assert/strict";
import { test } from "node:test";
import { InternalRaftRequest, PutRequest, RequestHeader } from "../../../src/proto/etcdserverpb.ts";
import { ClusterVersionSetRequest } from "../../../src/proto/membershippb.ts";
import { ownRequestId } from "../../../src/server/log/entry-id.ts";
import { Op } from "../../../src/server/log/op.ts";
import { InternalProposal } from "../../../src/server/log/proposal.ts";
import { ProposalQueue } from "../../../src/server/log/proposal-queue.ts";
import { RequestIdGenerator } from "../../../src/server/log/request-id.ts";

const PREFIX = 0xabcd;

function entryWith(id: bigint, fields: Partial<InternalRaftRequest>, username = ""): Uint8Array {
  const header = RequestHeader.create({ id, username, authRevision: username === "" ? 0 : 7 });
  return InternalRaftRequest.encode(InternalRaftRequest.create({ ...fields, header }));
}

const idOf = (prefix: number, suffix: number): bigint => (BigInt(prefix) << 48n) | BigInt(suffix);

test("the id of a request is found before and after its content, whatever its size", () => {
  const put = PutRequest.create({ key: Buffer.from("k"), value: Buffer.alloc(100_000, 1) });
  for (const suffix of [1, 127, 128, 2 ** 28 - 1, 2 ** 28, 2 ** 31, 2 ** 32, 2 ** 40 + 12_345, 2 ** 48 - 1]) {
    const id = idOf(PREFIX, suffix);
    assert.equal(ownRequestId(entryWith(id, { put }), PREFIX), suffix);
    assert.equal(ownRequestId(entryWith(id, { put }, "user"), PREFIX), suffix);
    const clusterVersionSet = ClusterVersionSetRequest.create({ ver: "3.7.0" });
    assert.equal(ownRequestId(entryWith(id, { clusterVersionSet }), PREFIX), suffix);
  }
});

test("other members' ids are not ours, however similar", () => {
  const put = PutRequest.create({ key: Buffer.from("k") });
  for (const prefix of [0, 1, PREFIX - 1, PREFIX ^ 0x8000, PREFIX ^ 0x00ff]) {
    assert.equal(ownRequestId(entryWith(idOf(prefix, 5), { put }), PREFIX), -1);
  }
  for (const prefix of [0, 1, 0xff, 0x100, 0xffff]) {
    assert.equal(ownRequestId(entryWith(idOf(prefix, 5), { put }), prefix), 5);
  }
});

test("ids encoded by the queue are found again", () => {
  const queue = new ProposalQueue(new RequestIdGenerator(BigInt(PREFIX), 1_700_000_000_000));
  const proposals = [
    new InternalProposal(Op.PUT, PutRequest.create(), Buffer.alloc(10), () => {}),
    new InternalProposal(Op.CLUSTER_VERSION_SET, ClusterVersionSetRequest.create(), Buffer.alloc(10), () => {}),
  ];
  for (const proposal of proposals) queue.add(proposal);
  const ids = queue.encodeWaiting().map((data) => ownRequestId(data, PREFIX));
  assert.deepEqual(
    ids,
    proposals.map(({ id }) => id),
  );
  queue.forwarded();
  assert.equal(queue.takeForwarded(ids[1]!), proposals[1]);
  assert.equal(queue.takeForwarded(ids[1]!), undefined);
  assert.equal(queue.takeForwarded(ids[0]!), proposals[0]);
  assert.equal(queue.hasForwarded, false);
});

test("anything else has no id: empty, cut off, of another version, or noise", () => {
  const whole = entryWith(idOf(PREFIX, 5), { put: PutRequest.create({ key: Buffer.from("k") }) });
  for (let length = 0; length < whole.length; length++) {
    assert.equal(ownRequestId(whole.subarray(0, length), PREFIX), -1, `${length} bytes`);
  }
  assert.equal(ownRequestId(Buffer.from("PUT /0/members"), PREFIX), -1);
  assert.equal(ownRequestId(Buffer.alloc(64, 0xff), PREFIX), -1);
  assert.equal(ownRequestId(Buffer.from([0x08, 0x05]), PREFIX), -1, "an id outside of a header is a client's");
});
