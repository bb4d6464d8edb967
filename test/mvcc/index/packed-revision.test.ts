import assert from "node:assert/strict";
import { test } from "node:test";
import {
  isAtOrBelow,
  isLiveAt,
  readPacked,
  revisionInfo,
  writePacked,
} from "../../../src/mvcc/index/packed-revision.ts";

const NUMBERS = [0, 1, 2 ** 31, 2 ** 32 - 1, 2 ** 32, 2 ** 40 + 12345, 2 ** 52 + 1, Number.MAX_SAFE_INTEGER];

test("every number up to 2^53 comes back from a packed revision", () => {
  const words = new Uint32Array(10).fill(0xffffffff);
  const out = revisionInfo();
  for (const main of NUMBERS) {
    for (const version of NUMBERS) {
      for (const created of NUMBERS) {
        for (const sub of [0, 1, 2 ** 32 - 1]) {
          writePacked(words, 2, main, sub, version, created);
          readPacked(words, 2, out);
          assert.deepEqual(out, { main, sub, version, created });
          assert.equal(isLiveAt(words, 2), version !== 0);
        }
      }
    }
  }
});

test("packed revisions are in the order of main, then sub", () => {
  const words = new Uint32Array(6);
  for (const main of NUMBERS) {
    writePacked(words, 0, main, 7, 1, 1);
    for (const other of NUMBERS) {
      for (const sub of [0, 6, 7, 8, Number.POSITIVE_INFINITY]) {
        assert.equal(isAtOrBelow(words, 0, other, sub), main < other || (main === other && 7 <= sub));
      }
    }
  }
});
