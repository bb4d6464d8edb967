import assert from "node:assert/strict";
import { chmodSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { kvorum, type Ran } from "../deploy/helpers.ts";
import { tempDir } from "../harness/in-process.ts";
import { findProgram, hostRequirement, requireStockEtcd, stockEtcd } from "../harness/programs.ts";
import { bootBareMachines, type Machines, machinesMissing } from "./machines.ts";

// `ssh` is a script here, which enters the host whose address it is given; what it runs there is as with ssh.

const missing = machinesMissing();
const skip = hostRequirement(missing === undefined, missing ?? "") || requireStockEtcd();
const SERVICE = "kvorum-etcd";
let root: ReturnType<typeof tempDir>;
let machines: Machines;

before(async () => {
  if (skip) return;
  root = tempDir();
  machines = await bootBareMachines(3);
  mkdirSync(join(root.path, "bin"));
  const cases = machines.all.map(({ address, pid }) => `${address}) pid=${pid} ;;`).join("\n");
  const ssh = `#!/bin/sh
while [ "$1" != -- ]; do shift; done
case "$2" in
${cases}
*) echo "ssh: Could not resolve hostname $2" >&2; exit 255 ;;
esac
shift 2
exec nsenter -t "$pid" -m -p -n -u -- sh -c "$*"
`;
  writeFileSync(join(root.path, "bin", "ssh"), ssh);
  chmodSync(join(root.path, "bin", "ssh"), 0o755);
});

after(async () => {
  if (skip) return;
  await machines.close();
  root.remove();
});

const cluster = (...args: string[]): Promise<Ran> => {
  const path = `${join(root.path, "bin")}:${process.env["PATH"]}`;
  return kvorum({ cwd: root.path, env: { PATH: path } }, "cluster", ...args);
};

const inventory = (more: string, addresses = machines.all.map(({ address }) => address)): void => {
  const members = addresses.map((address, i) => `  - { name: m${i + 1}, address: ${address} }\n`).join("");
  const rest = `program: /usr/local/bin/kvorum-test-etcd
user: kvorum-test
service: ${SERVICE}
directories: { data: /var/lib/kvorum-test, config: /etc/kvorum-test }
`;
  writeFileSync(join(root.path, "cluster.yml"), `cluster: hosts\nmembers:\n${members}${rest}${more}`);
};

const inside = (i: number, ...command: string[]): Promise<string> => machines.all[i]!.inside(...command);
const startOf = (i: number) => inside(i, "systemctl", "show", "-p", "ExecMainStartTimestampMonotonic", SERVICE);

test("hosts come from nothing to a healthy TLS cluster, stay as they are, and change one by one", {
  skip,
}, async () => {
  inventory("");
  const without = await cluster("plan");
  assert.equal(without.code, 2);
  assert.match(
    without.err,
    /m1: \/usr\/local\/bin\/kvorum-test-etcd is not there: install it, or name a local program/,
  );
  assert.match(without.err, /Nothing was changed\.\n$/);

  inventory(`copy: ${findProgram(stockEtcd().file)}\n`);
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
  inventory(`copy: ${findProgram(stockEtcd().file)}\ntuning: { election-timeout: 1500 }\n`);
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
  assert.match(restarted.out, /^m2: restart\n/);

  // Other members than the running cluster's are refused before anything is touched.
  inventory(
    `copy: ${findProgram(stockEtcd().file)}\ntuning: { election-timeout: 1500 }\n`,
    machines.all.slice(0, 2).map(({ address }) => address),
  );
  const fewer = await cluster("apply");
  assert.equal(fewer.code, 2);
  assert.match(
    fewer.err,
    /the cluster that runs has other members than the inventory: it has https:\/\/.*:2380 besides\./,
  );
  inventory("", ["10.255.255.1"]);
  assert.match(
    (await cluster("plan")).err,
    /not every host can be reached:\n {2}10\.255\.255\.1: ssh failed: .*Could not resolve/,
  );
});
