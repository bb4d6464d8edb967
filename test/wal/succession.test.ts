// Slow: every state of a log is cut and opened.
import assert from "node:assert/strict";
import { test } from "node:test";
import { EMPTY_BYTES } from "../../src/base/protobuf.ts";
import type { Entry } from "../../src/proto/raftpb.ts";
import { Wal } from "../../src/wal/wal.ts";
import { MemoryLogger } from "../harness/memory-logger.ts";
import { SimDisk } from "../sim/disk.ts";

const entry = (term: number, index: number): Entry => ({ type: 0, term, index, data: EMPTY_BYTES });

/** Each write breaks one rule after a valid one; the log must accept nothing of it. */
const BROKEN = [
  ["entries are written without a gap", { term: 2, vote: 1n, commit: 1 }, [entry(2, 2), entry(2, 4)]],
  ["terms never fall along the log", { term: 2, vote: 1n, commit: 1 }, [entry(2, 2), entry(1, 3)]],
  ["the term never falls", { term: 1, vote: 1n, commit: 1 }, [entry(2, 2)]],
  ["the commit index never falls", { term: 3, vote: 1n, commit: 0 }, [entry(2, 2)]],
  ["a vote stands for its term", { term: 2, vote: 2n, commit: 1 }, [entry(2, 2)]],
  ["a vote stands for its term", { term: 2, vote: 0n, commit: 1 }, []],
] as const;

test("an invalid successor in the log is never written, and ends the process", () => {
  for (const [rule, hardState, entries] of BROKEN) {
    const disk = new SimDisk();
    const wal = Wal.create({ disk, dir: "/wal", logger: new MemoryLogger(), metadata: EMPTY_BYTES });
    wal.append({ term: 2, vote: 1n, commit: 1 }, [entry(2, 1)]);
    const before = wal.writtenBytes;
    assert.throws(
      () => wal.append(hardState, entries),
      (error: Error) => error.name === "InvariantError" && error.message.startsWith(rule),
    );
    assert.equal(wal.writtenBytes, before, rule);
    // A later term may vote again, and an index may be rewritten.
    wal.append({ term: 3, vote: 2n, commit: 1 }, [entry(3, 2), entry(3, 3)]);
    wal.append(undefined, [entry(3, 2)]);
    wal.close();
  }
});
