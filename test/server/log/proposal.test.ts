import assert from "node:assert/strict";
import { test } from "node:test";
import { Op } from "../../../src/server/log/op.ts";
import { InternalProposal, Proposal } from "../../../src/server/log/proposal.ts";

const NOTHING = new Uint8Array(0);

class Broken extends Proposal {
  error: unknown;

  protected override answer(): void {
    throw new TypeError("no good");
  }

  protected override answerFailed(error: unknown): void {
    this.error = error;
  }
}

test("a mistake in an answer is told to its maker, not to whoever applies", () => {
  const proposal = new Broken(Op.PUT, {}, NOTHING);
  proposal.finish(null as never);
  assert.match(String(proposal.error), /no good/);
  assert.ok(proposal.answered);
});

test("a mistake of the server's own requests is nobody's to hide", () => {
  const proposal = new InternalProposal(Op.PUT, {}, NOTHING, () => {
    throw new TypeError("no good");
  });
  assert.throws(() => proposal.finish(null as never), /no good/);
});
