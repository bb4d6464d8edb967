import assert from "node:assert/strict";
import { test } from "node:test";
import { ClientVersions } from "../../../src/api/calls/client-versions.ts";
import type { CallInfo } from "../../../src/rpc/contract.ts";

const call = (version?: string): CallInfo =>
  ({ header: (name: string) => (name === "client-api-version" ? version : undefined) }) as CallInfo;

test("calls are counted by the version that their clients send", () => {
  const versions = new ClientVersions();
  for (let i = 0; i < 3; i++) versions.unary(call("3.7"));
  versions.stream(call("3.5"));
  versions.unary(call("3.7"));
  versions.unary(call());
  assert.deepEqual(
    [...versions.all()],
    [
      { version: "unknown", unary: 1, stream: 0 },
      { version: "3.7", unary: 4, stream: 0 },
      { version: "3.5", unary: 0, stream: 1 },
    ],
  );
});

test("clients cannot create arbitrary labels, or an unlimited number", () => {
  const versions = new ClientVersions();
  for (const odd of ["", 'a"b', "x".repeat(33), "3.7\n", "é"]) versions.unary(call(odd));
  for (let i = 0; i < 1000; i++) versions.unary(call(`${i}`));
  const all = [...versions.all()];
  assert.equal(all.length, 100);
  assert.equal(all[0]!.unary, 5 + 1000 - 99);
});
