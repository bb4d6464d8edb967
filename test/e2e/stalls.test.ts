/**
 * A short form of `npm run bench -- stalls`: beside none of its heavy loads does a turn of the member's event loop take
 * more than 100 ms, as the member measures it. Time in which its thread waited for a processor does not count. If the
 * machine is so busy that a client that only reads the clock is late, nothing can be concluded.
 */
import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, describe, test } from "node:test";
import type { Case, DataSet, Sizes } from "../../bench/stalls/case.ts";
import { clientCases } from "../../bench/stalls/clients.ts";
import { type Loaded, load } from "../../bench/stalls/data.ts";
import { measure } from "../../bench/stalls/measure.ts";
import { rangeCases } from "../../bench/stalls/ranges.ts";
import { upkeepCases } from "../../bench/stalls/upkeep.ts";
import { ourEtcd } from "../harness/programs.ts";

const TURN_MS_MAX = 100;
/** A client in its own process that is this late does not get its share of the machine. */
const LATE_MS = 30;
const ATTEMPTS = 3;
const SIZES: Sizes = {
  keys: 20_000,
  largeMib: 60,
  leases: 3_000,
  watches: 3_000,
  handshakes: 100,
  seconds: 2,
};
/** Minutes long at any size, or too large for a test machine. */
const LEFT_OUT = ["expire", "large-64"];

const cases = [...rangeCases, ...upkeepCases, ...clientCases].filter(({ name }) => !LEFT_OUT.includes(name));
const scratchDir = mkdtempSync(join(tmpdir(), "kvorum-stalls-"));
after(() => rmSync(scratchDir, { recursive: true, force: true }));

const fresh = (data: DataSet): Promise<Loaded> =>
  load(data, { side: "ours", program: ourEtcd(), members: 1, sizes: SIZES, scratchDir });

for (const data of new Set(cases.map((each) => each.data))) {
  describe(`a member with the data set "${data}"`, () => {
    let loaded: Loaded | undefined;
    after(() => loaded?.cluster.close());

    /** What was wrong with one run of a case; undefined for nothing. */
    async function attempt(each: Case): Promise<{ problem: string; busy: boolean } | undefined> {
      loaded ??= await fresh(data);
      const { turn, error, honest } = await measure(each, "ours", loaded, SIZES);
      if (each.spoils || error !== undefined) {
        await loaded.cluster.close();
        loaded = undefined;
      }
      assert.equal(error, undefined);
      assert.equal(honest.failed, 0, "calls of an honest client failed");
      if (turn === undefined || turn.ownMs <= TURN_MS_MAX) return undefined;
      return { problem: `a turn took ${turn.ownMs} ms (${turn.what})`, busy: honest.lateMs > LATE_MS };
    }

    for (const each of cases.filter((one) => one.data === data)) {
      test(`serves others beside ${each.name}: ${each.what}`, async (t) => {
        const problems: string[] = [];
        let busy = false;
        for (let i = 0; i < ATTEMPTS; i++) {
          const result = await attempt(each);
          if (result === undefined) return;
          problems.push(result.problem);
          busy ||= result.busy;
        }
        if (busy) t.diagnostic(`the machine is too busy to tell: ${problems.join("; ")}`);
        else assert.fail(problems.join("; "));
      });
    }
  });
}
