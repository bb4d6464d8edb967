/**
 * The client's guarantees over a long time, on a cluster of three processes of which one after the other is killed,
 * restarted, frozen, replaced, made the leader, or, with stock etcd of the same version, changed into the other program.
 * Watches, mirrors, locks, elections, transactions and leases are checked all the while.
 *
 *   npm run soak -- [--minutes N]   how long (2)
 *     --seed N                      another order of faults
 *     --both                        members become stock etcd (KVORUM_STOCK_ETCD, or `etcd` on PATH) and back
 *     --stock                       all of them are stock etcd
 *
 * Prints each fault and, at the end, what was counted. Exits with 1 when a guarantee was broken.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { withCluster } from "../../harness/cluster.ts";
import { commandLine } from "../../harness/command-line.ts";
import { seeded } from "../../harness/random.ts";
import { FAULTS } from "./faults.ts";
import { Findings } from "./findings.ts";
import { Work } from "./work.ts";

const options = commandLine({ minutes: "number", seed: "number", both: "flag", stock: "flag" });
const minutes = options.number("minutes", 2);
const random = seeded(options.number("seed", 1));
const kind = options.has("stock") ? "stock" : "ours";
const faults = FAULTS.filter(({ both }) => both !== true || options.has("both"));
const findings = new Findings();

await withCluster({ members: [kind, kind, kind] }, async (cluster) => {
  const work = new Work(
    cluster.all.map(({ url }) => url),
    random,
    findings,
  );
  await work.begin();
  const beganMs = performance.now();
  while (performance.now() - beganMs < minutes * 60_000 && findings.found.length === 0) {
    await sleep(1000 + random.below(3000));
    const fault = random.pick(faults);
    const member = random.chance(0.4) ? await cluster.leader() : random.pick(cluster.all);
    console.log(`${Math.round((performance.now() - beganMs) / 1000)} s: ${member}: ${fault.name}`);
    await fault.run({ cluster, work, random }, member);
    findings.count("faults");
  }
  await cluster.leader();
  await work.end();
  await cluster.settled();
  console.log(`${findings.line}; longest time without a write ${Math.round(work.gapMs)} ms`);
});
console.log(findings.found.length === 0 ? "every guarantee held" : `${findings.found.length} broken`);
process.exit(findings.found.length === 0 ? 0 : 1);
