import assert from "node:assert/strict";
import { test } from "node:test";
import type { Operation } from "../sim/checkers/history.ts";
import { judge } from "./history.ts";
import { requireFault, survives } from "./suite.ts";

// Members on separate hosts, in network namespaces, under load.

test("a leader that is partitioned answers nothing stale but serializable reads", {
  skip: requireFault("partition-leader"),
}, async () => {
  const { history } = await survives("partition-leader");
  // The same history with its serializable reads treated as linearizable: the checker finds the stale ones.
  const operations = history.operations.map((operation): Operation => {
    const { action } = operation;
    if (action.kind !== "range") return operation;
    return { ...operation, action: { kind: "range", request: { ...action.request, serializable: false } } };
  });
  const messages = judge({ ...history, operations }).findings.map(({ message }) => message);
  assert.ok(messages.length > 0, "the member that was cut off answered serializable reads");
  for (const message of messages) assert.match(message, /read revision \d+, but \d+ was known before it began/);
});

test("members on a bad network lose nothing", { skip: requireFault("weather") }, async () => {
  await survives("weather", 3);
});
