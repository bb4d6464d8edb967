import assert from "node:assert/strict";
import { test } from "node:test";
import { PutRequest, PutResponse } from "../../../src/proto/etcdserverpb.ts";
import { Op } from "../../../src/server/log/op.ts";
import { InternalProposal, Proposal } from "../../../src/server/log/proposal.ts";

const NOTHING = new Uint8Array(0);

class Broken extends Proposal<typeof Op.PUT> {
  error: unknown;

  protected override answer(): void {
    throw new TypeError("no good");
  }

  protected override answerFailed(error: unknown): void {
    this.error = error;
  }
}

test("an exception while answering is reported to the proposal, not to the applier", () => {
  const proposal = new Broken(Op.PUT, PutRequest.create(), NOTHING);
  proposal.finish(PutResponse.create());
  assert.match(String(proposal.error), /no good/);
  assert.ok(proposal.answered);
});

test("an exception of the server's own requests is not swallowed", () => {
  const proposal = new InternalProposal(Op.PUT, PutRequest.create(), NOTHING, () => {
    throw new TypeError("no good");
  });
  assert.throws(() => proposal.finish(PutResponse.create()), /no good/);
});
