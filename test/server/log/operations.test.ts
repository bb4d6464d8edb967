import assert from "node:assert/strict";
import { test } from "node:test";
import {
  DeleteRangeRequest,
  InternalRaftRequest,
  PutRequest,
  PutResponse,
  TxnRequest,
  TxnResponse,
} from "../../../src/proto/etcdserverpb.ts";
import { ClusterVersionSetRequest } from "../../../src/proto/membershippb.ts";
import type { Appliers } from "../../../src/server/apply/appliers.ts";
import { EtcdError } from "../../../src/server/contract/errors.ts";
import { Op, opNames } from "../../../src/server/log/op.ts";
import { type Operation, operationOf } from "../../../src/server/log/operations.ts";
import type { DeferredAnswer, Outcome } from "../../../src/server/log/outcome.ts";
import { InternalProposal, Proposal, type QueuedProposal } from "../../../src/server/log/proposal.ts";
import type { EtcdServer } from "../../../src/server/server.ts";

/**
 * Checks that a wrong pair of operation and request, or of operation and response, does not compile: tsc reports an
 * unused expected error. The functions are never called.
 */

const bytes = new Uint8Array(0);
const put = PutRequest.create();
const txn = TxnRequest.create();
const ignore = (): void => {};

export async function requests(server: EtcdServer): Promise<void> {
  const outcome = await server.request(Op.PUT, put, bytes);
  if (outcome instanceof EtcdError) return;
  const { prevKv } = outcome;
  // @ts-expect-error a put has no branch that succeeded
  const { succeeded } = outcome;
  // @ts-expect-error the request of another operation
  await server.request(Op.PUT, txn, bytes);
  // @ts-expect-error no request at all
  await server.request(Op.PUT, {}, bytes);
  // @ts-expect-error the response of another operation
  const wrong: TxnResponse | EtcdError = await server.request(Op.PUT, put, bytes);
  // @ts-expect-error what members of 3.4 cannot read in the form of the v2 API either
  await server.request(Op.V2, { op: Op.PUT, request: put }, bytes);
  ignore.call([prevKv, succeeded, wrong]);
}

export function proposals(): void {
  new InternalProposal(Op.PUT, put, bytes, ignore);
  // @ts-expect-error the request of another operation
  new InternalProposal(Op.PUT, txn, bytes, ignore);
  // @ts-expect-error somebody who waits for another response
  new InternalProposal(Op.PUT, put, bytes, (_outcome: Outcome<typeof Op.TXN>) => {});
  const proposal = new InternalProposal(Op.PUT, put, bytes, ignore);
  proposal.finish(PutResponse.create());
  // @ts-expect-error the response of another operation
  proposal.finish(TxnResponse.create());
  // @ts-expect-error a proposal of one operation is none of any: who forgot which one it is cannot answer it
  const any: Proposal<Op> = proposal;
  const queued: QueuedProposal = proposal;
  // @ts-expect-error nor does who only keeps it in a queue
  queued.finish(PutResponse.create());
  ignore.call(any);
}

export class PutAnswer extends Proposal<typeof Op.PUT> {
  // @ts-expect-error an answer of another operation
  protected override answer(_outcome: Outcome<typeof Op.DELETE_RANGE>): void {}

  // @ts-expect-error the same, with reads still to be made
  protected override answerDeferred(_answer: DeferredAnswer<TxnResponse>): void {}
}

export const appliers: Pick<Appliers, typeof Op.PUT | typeof Op.TXN | typeof Op.RANGE> = {
  // @ts-expect-error the request of another operation
  [Op.PUT]: (_request: DeleteRangeRequest) => PutResponse.create(),
  // @ts-expect-error the response of another operation
  [Op.TXN]: (_request) => PutResponse.create(),
  [Op.RANGE]: (_request) => null,
};

// @ts-expect-error an operation without its applier
export const incomplete: Appliers = { ...appliers };

// @ts-expect-error an operation with the request of another one
export const operation: Operation = { op: Op.PUT, request: txn };

test("the operation of an entry follows from its field", () => {
  const entry = (fields: Partial<InternalRaftRequest>): Operation | undefined =>
    operationOf(InternalRaftRequest.decode(InternalRaftRequest.encode(InternalRaftRequest.create(fields))));
  assert.deepEqual(entry({ put }), { op: Op.PUT, request: put });
  const remove = DeleteRangeRequest.create({ key: Buffer.from("k") });
  assert.equal(entry({ deleteRange: remove })?.op, Op.DELETE_RANGE);
  const version = ClusterVersionSetRequest.create({ ver: "3.7.0" });
  assert.deepEqual(entry({ clusterVersionSet: version }), { op: Op.CLUSTER_VERSION_SET, request: version });
  assert.equal(entry({}), undefined);
});

test("every operation is found in an entry by the number of its field", () => {
  for (const op of Object.values(Op)) {
    if (op === Op.V2) continue;
    const tag = op * 8 + 2;
    const bytesOfTag: number[] = [];
    for (let rest = tag; ; rest >>>= 7) {
      bytesOfTag.push(rest > 127 ? (rest & 127) | 128 : rest);
      if (rest <= 127) break;
    }
    assert.equal(operationOf(InternalRaftRequest.decode(Buffer.from([...bytesOfTag, 0])))?.op, op, opNames[op]);
  }
});
