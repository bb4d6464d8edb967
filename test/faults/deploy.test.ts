import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { after, before, test } from "node:test";
import { findProgram, hostRequirement, requireStockEtcd, stockEtcd } from "../harness/programs.ts";
import { Deployment, SERVICE } from "./deployment.ts";
import { machinesMissing } from "./machines.ts";

const missing = machinesMissing();
const skip = hostRequirement(missing === undefined, missing ?? "") || requireStockEtcd();
let deployment: Deployment;

before(async () => {
  if (!skip) deployment = await Deployment.boot(3);
});

after(async () => {
  if (!skip) await deployment.close();
});

const cluster = (...args: string[]) => deployment.cluster(...args);
const inside = (i: number, ...command: string[]) => deployment.inside(i, ...command);
const startOf = (i: number) => deployment.startOf(i);

test("hosts come from nothing to a healthy TLS cluster, stay as they are, and change one by one", {
  skip,
}, async () => {
  deployment.inventory("");
  const without = await cluster("plan");
  assert.equal(without.code, 2);
  assert.match(
    without.err,
    /m1: \/usr\/local\/bin\/kvorum-test-etcd is not there: install it, or name a local program/,
  );
  assert.match(without.err, /Nothing was changed\.\n$/);

  // A firewall between two hosts.
  const second = deployment.machines.all[1]!.address;
  await inside(0, "iptables", "-w", "-A", "OUTPUT", "-d", second, "-p", "tcp", "--dport", "2380", "-j", "DROP");
  assert.match((await cluster("plan")).err, new RegExp(`m1: it cannot reach ${second}:2380: open the port`));
  await inside(0, "iptables", "-w", "-F", "OUTPUT");

  deployment.inventory(`copy: ${findProgram(stockEtcd().file)}\n`);
  const planned = await cluster("plan");
  assert.equal(planned.code, 1, planned.err);
  assert.match(planned.out, /^m2: create the user kvorum-test$/m);
  assert.match(planned.out, /^m3: write \/etc\/kvorum-test\/conf\.yml \(is missing\)$/m);
  assert.match(planned.out, /^m1: start$/m);

  const applied = await cluster("apply");
  assert.equal(applied.code, 0, applied.err + applied.out);
  assert.equal(applied.out.match(/│ +(true|false) │ +false │/g)?.length, 3);
  assert.equal((await inside(0, "stat", "-c", "%a %U", "/etc/kvorum-test/pki/server.key")).trim(), "600 kvorum-test");
  assert.equal((await inside(1, "systemctl", "is-enabled", SERVICE)).trim(), "enabled");
  assert.match(await inside(2, "ps", "-o", "user:20=", "-C", "kvorum-test-etcd"), /^kvorum-test\s*$/);

  // Where nothing differs nothing is done.
  const before = await Promise.all([0, 1, 2].map(startOf));
  assert.equal((await cluster("plan")).out, "nothing differs\n");
  assert.match((await cluster("apply")).out, /^nothing differs\n/);
  assert.deepEqual(await Promise.all([0, 1, 2].map(startOf)), before);

  // A setting changes: restarts follow one another. A run that ended before its restart is completed by the next.
  deployment.inventory(`copy: ${findProgram(stockEtcd().file)}\ntuning: { election-timeout: 1500 }\n`);
  await inside(1, "sh", "-c", ": > /etc/kvorum-test/.restart-needed");
  const changed = await cluster("plan");
  assert.match(changed.out, /^m1: write \/etc\/kvorum-test\/conf\.yml \(differs\)\n(m1: enable .*\n)?m1: restart$/m);
  const again = await cluster("apply");
  assert.equal(again.code, 0, again.err + again.out);
  assert.ok((await Promise.all([0, 1, 2].map(startOf))).every((start, i) => start !== before[i]));
  await inside(1, "sh", "-c", ": > /etc/kvorum-test/.restart-needed");
  assert.equal((await cluster("plan")).out, "m2: restart\n");

  // No restart while another member is missing: the majority would be lost.
  await inside(0, "systemctl", "kill", "--kill-whom=main", "-s", "STOP", SERVICE);
  const refused = await cluster("apply");
  assert.equal(refused.code, 3);
  assert.match(refused.err, /m2 is not restarted while m1 is not healthy, for that could cost the majority/);
  const ill = await cluster("health");
  assert.deepEqual([ill.code, ill.out.match(/is healthy/g)?.length, ill.out.match(/is unhealthy/g)?.length], [2, 2, 1]);
  await inside(0, "systemctl", "kill", "--kill-whom=main", "-s", "CONT", SERVICE);
  const restarted = await cluster("apply");
  assert.equal(restarted.code, 0, restarted.err);
  assert.match(restarted.out, /^(m2: the lead moves to m[13]\n)?m2: restart\n/);

  // Other members than the running cluster's are refused before anything is touched.
  deployment.inventory(
    `copy: ${findProgram(stockEtcd().file)}\ntuning: { election-timeout: 1500 }\n`,
    deployment.machines.all.slice(0, 2),
  );
  const fewer = await cluster("apply");
  assert.equal(fewer.code, 2);
  assert.match(
    fewer.err,
    /the cluster that runs has other members than the inventory: it has https:\/\/.*:2380 besides\./,
  );
  writeFileSync(deployment.path("cluster.yml"), "cluster: x\nmembers: [{ name: a, address: 10.255.255.1 }]\n");
  assert.match(
    (await cluster("plan")).err,
    /not every host can be reached:\n {2}10\.255\.255\.1: ssh failed: .*Could not resolve/,
  );
});
