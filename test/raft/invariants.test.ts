// Slow: random groups under a hostile network.
import assert from "node:assert/strict";
import { test } from "node:test";
import { Simulation, type SimulationOptions } from "./harness/simulation.ts";

/** KVORUM_RAFT_SEEDS=N runs N seeds of each kind; a failure names its seed. */
const seeds = Number(process.env["KVORUM_RAFT_SEEDS"] ?? 12);
const first = Number(process.env["KVORUM_RAFT_FIRST_SEED"] ?? 1);
const steps = 3000;

const small = { messageBytesMax: 40, committedBytesMax: 60, uncommittedBytesMax: 300, inflightMessagesMax: 2 };
const kinds: [string, number, SimulationOptions][] = [
  ["three voters", 3, {}],
  ["three voters with pre-vote and check-quorum", 3, { preVote: true, checkQuorum: true }],
  ["three voters with small limits", 3, { preVote: true, checkQuorum: true, ...small }],
  ["three voters with asynchronous writes", 3, { asyncStorageWrites: true }],
  ["four voters with asynchronous writes and small limits", 4, { asyncStorageWrites: true, preVote: true, ...small }],
  ["a single voter with asynchronous writes", 1, { asyncStorageWrites: true, preVote: true, checkQuorum: true }],
  ["five voters, stepping down when removed", 5, { stepDownOnRemoval: true, checkQuorum: true, preVote: true }],
];

for (const [name, voters, options] of kinds) {
  test(`${name} keep raft's invariants and come to rest`, () => {
    const total = { leaders: 0, applied: 0, readsDone: 0, restarts: 0 };
    for (let seed = first; seed < first + seeds; seed++) {
      try {
        const simulation = new Simulation(seed, voters, options);
        simulation.run(steps);
        simulation.settle();
        const { counts } = simulation.invariants;
        for (const key of Object.keys(total) as (keyof typeof total)[]) total[key] += counts[key];
      } catch (error) {
        throw new Error(`seed ${seed}: ${String(error)}`, { cause: error });
      }
    }
    for (const [what, count] of Object.entries(total)) assert.ok(count >= seeds, `few ${what}: ${count}`);
  });
}
