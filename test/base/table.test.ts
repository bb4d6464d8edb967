import assert from "node:assert/strict";
import { test } from "node:test";
import { humanBytes, renderTable } from "../../src/base/table.ts";

test("a table is as wide as its widest cells", () => {
  const table = renderTable(["id", "hash_revision"], [["8e9e05c52164694d", "7"], ["é", "grün 世界"]]); // biome-ignore format: rows
  assert.equal(
    table,
    `┌──────────────────┬───────────────┐
│        ID        │ HASH REVISION │
├──────────────────┼───────────────┤
│ 8e9e05c52164694d │             7 │
│                é │     grün 世界 │
└──────────────────┴───────────────┘
`,
  );
});

test("sizes are rounded for human readers", () => {
  const sizes: [number, string][] = [
    [0, "0 B"],
    [9, "9 B"],
    [999, "999 B"],
    [1000, "1.0 kB"],
    [20_480, "20 kB"],
    [21_480, "22 kB"],
    [999_999, "1000 kB"],
    [2_147_483_648, "2.1 GB"],
  ];
  for (const [bytes, text] of sizes) assert.equal(humanBytes(bytes), text);
});
