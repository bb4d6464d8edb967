import assert from "node:assert/strict";
import { test } from "node:test";
import { broken, InvariantError, invariant, isFatal } from "../../src/base/fatal.ts";
import { BackendError } from "../../src/mvcc/backend/backend.ts";

test("a broken invariant is fatal, wherever it was found and whatever it caused", () => {
  assert.ok(isFatal(new InvariantError("broken")));
  assert.ok(isFatal(new Error("it failed", { cause: new InvariantError("broken") })));
  assert.ok(isFatal(new BackendError("ERR_BACKEND_CORRUPT", "damaged")));
});

test("an ordinary error is not fatal, nor is a value that is not an error", () => {
  assert.ok(!isFatal(new TypeError("undefined is not a function")));
  assert.ok(!isFatal(new BackendError("ERR_BACKEND_CLOSED", "closed")));
  for (const value of [undefined, null, "text", { fatal: true }]) assert.ok(!isFatal(value));
  const circle = new Error("a");
  circle.cause = new Error("b", { cause: circle });
  assert.ok(!isFatal(circle));
});

test("a failed invariant throws what was found, one that holds throws nothing", () => {
  invariant(true, "one is one");
  assert.throws(() => invariant(false, "terms never fall"), { name: "InvariantError", message: "terms never fall" });
  assert.throws(() => invariant(false, "terms never fall", 3), { message: "terms never fall: 3" });
  assert.throws(() => invariant(false, "terms never fall", 3, 4n), { message: "terms never fall: 3, 4" });
  const cause = new TypeError("no number");
  assert.throws(() => broken("a row cannot be read", cause), { name: "InvariantError", cause });
});
