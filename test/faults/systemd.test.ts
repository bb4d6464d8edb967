import assert from "node:assert/strict";
import { test } from "node:test";
import { hostRequirement } from "../harness/programs.ts";
import { waitFor } from "../harness/wait.ts";
import { gapsOf, serves } from "./gaps.ts";
import { judge } from "./history.ts";
import { Load } from "./load.ts";
import { bootMachines, machinesMissing } from "./machines.ts";

const missing = machinesMissing();

test("an installed service survives systemctl kill, a restart and the loss of its host's power", {
  skip: hostRequirement(missing === undefined, missing ?? ""),
}, async (t) => {
  const machines = await bootMachines(3);
  const load = new Load({ rate: 30 });
  try {
    load.start(machines.all);
    const { recorder } = load;
    const all = machines.all.map(({ name }) => name);
    const served = async () => {
      const from = recorder.now;
      for (const name of all) await waitFor(`${name} serves`, () => serves(recorder.operations, name, from), 60_000);
    };
    const hurt = async (what: string, name: string, trouble: () => Promise<unknown>) => {
      const from = recorder.now;
      await trouble();
      await served();
      const { operations } = recorder;
      const hits = [{ moment: from, members: [name] }];
      const { cluster, hit } = gapsOf({ operations, members: all, hits, from, to: recorder.now, healed: [] });
      t.diagnostic(
        `${what}: no write for ${cluster.write} ms, no read for ${cluster.read} ms; at ${name} ${hit!.write} and ${hit!.read} ms`,
      );
    };
    await served();
    const leader = await machines.leader();
    await hurt("systemctl kill -s KILL of the leader", leader.name, () =>
      leader.systemctl("kill", "--kill-whom=main", "-s", "KILL", "kvorum.service"),
    );
    assert.match(await leader.systemctl("show", "-p", "NRestarts", "kvorum.service"), /=1/, "systemd started it again");
    const next = await machines.leader();
    await hurt("systemctl restart of the leader", next.name, () => next.systemctl("restart", "kvorum.service"));
    const last = await machines.leader();
    await hurt("loss of power of the leader's host", last.name, async () => {
      await last.cutPower();
      await machines.leader(last);
      await last.boot();
    });
    await load.stop();
    const { history, problems } = await load.finish();
    assert.deepEqual(problems, []);
    assert.deepEqual(judge(history).findings, []);
  } catch (error) {
    throw new Error(`${(error as Error).stack}\n${await machines.describe()}`);
  } finally {
    await load.close();
    await machines.close();
  }
});
