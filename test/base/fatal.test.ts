import assert from "node:assert/strict";
import { test } from "node:test";
import { InvariantError, isFatal } from "../../src/base/fatal.ts";
import { LeaseInvariantError } from "../../src/lease/errors.ts";
import { BackendError } from "../../src/mvcc/backend/backend.ts";
import { MvccInvariantError } from "../../src/mvcc/model/types.ts";
import { RaftInvariantError } from "../../src/raft/errors.ts";

test("a broken invariant is fatal, whoever found it and whatever it caused", () => {
  for (const kind of [InvariantError, MvccInvariantError, LeaseInvariantError, RaftInvariantError]) {
    assert.ok(isFatal(new kind("broken")));
    assert.ok(isFatal(new Error("it failed", { cause: new kind("broken") })));
  }
  assert.ok(isFatal(new BackendError("ERR_BACKEND_CORRUPT", "damaged")));
});

test("a mistake is not fatal, nor is what is no error at all", () => {
  assert.ok(!isFatal(new TypeError("undefined is not a function")));
  assert.ok(!isFatal(new BackendError("ERR_BACKEND_CLOSED", "closed")));
  for (const value of [undefined, null, "text", { fatal: true }]) assert.ok(!isFatal(value));
  const circle = new Error("a");
  circle.cause = new Error("b", { cause: circle });
  assert.ok(!isFatal(circle));
});
