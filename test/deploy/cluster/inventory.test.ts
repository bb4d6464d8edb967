import assert from "node:assert/strict";
import { mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { parse } from "yaml";
import type { Config } from "../../../src/config/config.ts";
import { withAddress, withField, withMember, withoutMember } from "../../../src/deploy/inventory/edit.ts";
import { loadConfigOf } from "../../config/harness.ts";
import { tempDir } from "../../harness/in-process.ts";
import { findProgram, requireProgram, run } from "../../harness/programs.ts";
import { kvorum, type Ran } from "../helpers.ts";

let root: ReturnType<typeof tempDir>;
before(() => (root = tempDir()));
after(() => root.remove());

let count = 0;
/** A directory with an inventory. */
function withInventory(text: string): string {
  const cwd = join(root.path, `${++count}`);
  mkdirSync(cwd);
  writeFileSync(join(cwd, "cluster.yml"), text);
  return cwd;
}

const cluster = (cwd: string, ...args: string[]): Promise<Ran> => kvorum({ cwd }, "cluster", ...args);

const THREE = `cluster: prod
members:
  - { name: etcd-1, address: 10.0.0.1, zone: a, names: [one.example] }
  - { name: etcd-2, address: 10.0.0.2, zone: b }
  - { name: etcd-3, address: 10.0.0.3, zone: c }
`;

test("init writes an inventory that is checked, explained and not overwritten", async () => {
  const cwd = withInventory("");
  rmSync(join(cwd, "cluster.yml"));
  const members = ["--member", "etcd-1=10.0.0.1", "--member", "etcd-2=10.0.0.2", "--member", "etcd-3=fd00::3"];
  const made = await cluster(cwd, "init", "--name", "prod", ...members);
  assert.deepEqual([made.code, made.err], [0, ""]);
  assert.deepEqual(readdirSync(cwd).sort(), ["cluster.schema.json", "cluster.yml"]);
  const checked = await cluster(cwd, "check");
  assert.equal(checked.out, "prod: 3 members: etcd-1 10.0.0.1, etcd-2 10.0.0.2, etcd-3 fd00::3\n");
  // Every default that it tells is one that can be set: the file with all of them is valid.
  const text = readFileSync(join(cwd, "cluster.yml"), "utf8");
  const open = text.replaceAll(
    /^# (?=(token|program|copy|signed-by|style|user|service|directories|ports|authentication|loopback|tuning|certificates):| {2})/gm,
    "",
  );
  writeFileSync(join(cwd, "open.yml"), open.replace("/var/lib/etcd-wal", "/wal/etcd"));
  assert.ok(Object.keys(parse(open)).length > 10);
  assert.deepEqual((await cluster(cwd, "check", "-f", "open.yml")).err, "");
  assert.match((await cluster(cwd, "init", ...members)).err, /cluster\.yml is there already: edit it/);
  const wrong = await cluster(cwd, "init", "-f", "x.yml", "--member", "a=host.example");
  assert.match(wrong.err, /members\[0\]\.address is host\.example: etcd listens on IP addresses only/);
  assert.ok(!readdirSync(cwd).some((name) => name.startsWith("x.yml")));
});

test("everything that is wrong with an inventory is told at once, each with what it should be", async () => {
  const wrong = async (change: (text: string) => string): Promise<string> => {
    const ran = await cluster(withInventory(change(THREE)), "check");
    assert.equal(ran.code, 3);
    return ran.err;
  };
  const both = await wrong((text) => text.replace("10.0.0.2", "two.example").replace("etcd-3", "etcd-1"));
  assert.match(
    both,
    /members\[1\]\.address is two\.example: .*put DNS names under names\n {2}the name etcd-1 is given twice\n/,
  );
  assert.match(await wrong((text) => text.replace("10.0.0.3", "10.0.0.1")), /the address 10\.0\.0\.1 is given twice/);
  assert.match(
    await wrong((text) => text.replace("10.0.0.3", "127.0.0.1")),
    /127\.0\.0\.1, at which no other member reaches it/,
  );
  assert.match(
    await wrong((text) => `${text}stile: conf\n`),
    /there is no field stile; there are cluster, token, members,/,
  );
  assert.match(await wrong((text) => `${text}style: xml\n`), /style is one of conf, environment, flags, not xml/);
  assert.match(
    await wrong((text) => `${text}ports: { client: 70000 }\n`),
    /ports\.client is a whole number from 1 to 65535, not 70000/,
  );
  assert.match(await wrong((text) => `${text}ports: { client: 2380 }\n`), /ports\.client and ports\.peer are the same/);
  assert.match(await wrong((text) => `${text}loopback: "yes"\n`), /loopback is true or false, not "yes"/);
  assert.match(
    await wrong((text) => `${text}directories: { data: /var }\n`),
    /take a directory of its own, such as \/var\/lib\/etcd/,
  );
  assert.match(
    await wrong((text) => `${text}directories: { data: relative }\n`),
    /directories\.data has characters that it may not have/,
  );
  assert.match(
    await wrong((text) => `${text}directories: { wal: /var/lib/etcd/member/wal }\n`),
    /directories\.wal is .*: it lies where the data is/,
  );
  assert.match(
    await wrong((text) => `${text}tuning: { heartbeat-interval: 500 }\n`),
    /election-timeout is 1000: it is at least five times the heartbeat-interval, 500/,
  );
  assert.match(
    await wrong((text) => `${text}program: "/bin/x; rm -rf /"\n`),
    /program has characters that it may not have/,
  );
  assert.match(await wrong(() => "cluster: x\nmembers: []\n"), /members is empty/);
  assert.match(await wrong(() => "members: 5\n"), /cluster is missing\n {2}members is not a list/);
  assert.match(await wrong(() => "- a\n"), /the file is not a map of fields/);
  assert.match(await wrong(() => "a: [\n"), /cluster\.yml is not YAML: /);
  assert.match((await cluster(root.path, "check", "-f", "none.yml")).err, /the inventory: .*none\.yml does not exist/);
});

test("what is allowed and probably not meant is a warning", async () => {
  const warned = async (text: string): Promise<string> => {
    const ran = await cluster(withInventory(text), "check");
    assert.equal(ran.code, 0);
    return ran.err;
  };
  assert.equal(await warned(THREE), "");
  const two = THREE.replace(/ {2}- { name: etcd-3.*\n/, "");
  assert.match(await warned(two), /warning: 2 members bear the loss of no more than 1 do; take an odd number/);
  assert.match(
    await warned(THREE.replace("zone: b", "zone: a")),
    /warning: zone a has 2 of 3 members: without it there is no majority/,
  );
  assert.match(await warned(`${THREE}user: root\n`), /warning: user is root/);
  assert.match(await warned(`${THREE}tuning: { quota-backend-bytes: 17179869184 }\n`), /warning: .*above 8 GiB/);
});

test("the three styles of configuration mean the same to a member", async () => {
  const more = `directories: { wal: /wal/etcd }
tuning: { heartbeat-interval: 250, election-timeout: 2000, quota-backend-bytes: 6442450944, max-request-bytes: 33554432,
  auto-compaction-mode: periodic, auto-compaction-retention: "1" }
`;
  const configs: Config[] = [];
  for (const style of ["conf", "environment", "flags"]) {
    const cwd = withInventory(`${THREE}${more}style: ${style}\n`);
    const ran = await cluster(cwd, "render", "--out", "out");
    assert.equal(ran.code, 0, ran.err);
    const at = (path: string) => join(cwd, "out", "etcd-2", path);
    const unit = readFileSync(at("etc/systemd/system/etcd.service"), "utf8").replaceAll(/\\\n\s*/g, "");
    const [, line] = /^ExecStart=\/usr\/local\/bin\/etcd ?(.*)$/m.exec(unit)!;
    const argv = line!
      .split(" ")
      .filter(Boolean)
      .map((word) => word.replace("=/etc/etcd/conf.yml", `=${at("etc/etcd/conf.yml")}`));
    const file = style === "environment" ? readFileSync(at("etc/etcd/etcd.conf"), "utf8") : "";
    assert.equal(unit.includes("EnvironmentFile=/etc/etcd/etcd.conf"), style === "environment");
    const env = Object.fromEntries([...file.matchAll(/^(\w+)="(.*)"$/gm)].map(([, name, value]) => [name!, value!]));
    configs.push(await loadConfigOf(argv, env));
    assert.equal(statSync(at("etc/etcd/pki/server.key")).mode & 0o777, 0o600);
  }
  const [conf, ...others] = configs;
  assert.deepEqual([conf!.name, conf!.walDir, conf!.electionMs], ["etcd-2", "/wal/etcd", 2000]);
  // The harness gives another log to a command line without a file.
  const log = conf!.log;
  for (const other of others) assert.deepEqual({ ...other, log, configFile: "" }, { ...conf, configFile: "" });
});

test("rendering again changes nothing, and one member more makes only what concerns it", async () => {
  const cwd = withInventory(THREE);
  await cluster(cwd, "render");
  const again = await cluster(cwd, "render");
  assert.ok(
    again.out
      .split("\n")
      .filter(Boolean)
      .every((line) => line.startsWith("unchanged ")),
    again.out,
  );
  writeFileSync(join(cwd, "cluster.yml"), `${THREE}  - { name: etcd-4, address: 10.0.0.4 }\n`);
  const more = await cluster(cwd, "render");
  assert.match(more.out, /^made {6}certificate members\/etcd-4\/server\.crt$/m);
  assert.match(more.out, /^unchanged rendered\/etcd-1\/etc\/etcd\/pki\/server\.crt$/m);
  assert.match(more.out, /^wrote {5}rendered\/etcd-1\/etc\/etcd\/conf\.yml$/m);
});

test("units pass systemd's own verification, and expose little", {
  skip: requireProgram("systemd-analyze"),
}, async () => {
  for (const style of ["conf", "environment", "flags"]) {
    const cwd = withInventory(
      `${THREE}program: ${findProgram("true")}\nuser: root\nservice: etcd-test\nstyle: ${style}\n`,
    );
    await cluster(cwd, "render");
    const unit = join(cwd, "rendered/etcd-1/etc/systemd/system/etcd-test.service");
    const verified = await run("systemd-analyze", ["verify", unit]);
    assert.equal(verified.code, 0, verified.stderr);
    assert.doesNotMatch(verified.stderr, /etcd-test/);
    const judged = await run("systemd-analyze", ["security", "--offline=true", "--no-pager", "--threshold=35", unit]);
    assert.equal(judged.code, 0, judged.stdout.toString());
  }
});

test("docker compose gets a service for each member, with its certificates and a port of its own", async () => {
  const cwd = withInventory(THREE);
  assert.match((await cluster(cwd, "render", "--target", "compose")).err, /compose needs --image, such as/);
  assert.match(
    (await cluster(cwd, "render", "--target", "helm")).err,
    /--target is systemd, kubeadm or compose, not helm/,
  );
  const ran = await cluster(cwd, "render", "--target", "compose", "--image", "some/etcd:v3", "--out", "c");
  assert.equal(ran.code, 0, ran.err);
  const { services, volumes } = parse(readFileSync(join(cwd, "c", "compose.yaml"), "utf8"));
  assert.deepEqual(Object.keys(services), ["etcd-1", "etcd-2", "etcd-3"]);
  assert.deepEqual(Object.keys(volumes), ["etcd-1", "etcd-2", "etcd-3"]);
  const { command, ports, volumes: mounts } = services["etcd-2"];
  assert.deepEqual(ports, ["127.0.0.1:12379:2379"]);
  const config = await loadConfigOf(command.slice(1));
  assert.equal(config.name, "etcd-2");
  for (const mount of mounts.slice(1)) assert.ok(statSync(join(cwd, "c", mount.split(":")[0])), mount);
  const shared = withInventory(`${THREE}certificates: { shared: true }\n`);
  await cluster(shared, "render", "--target", "compose", "--image", "some/etcd:v3", "--out", "c");
  const other = parse(readFileSync(join(shared, "c", "compose.yaml"), "utf8"));
  for (const mount of other.services["etcd-3"].volumes.slice(1))
    assert.ok(statSync(join(shared, "c", mount.split(":")[0])), mount);
});

test("what operations write into an inventory keeps its comments", () => {
  const text = `# The production cluster.
cluster: prod
members:
  # In the cellar.
  - { name: etcd-1, address: 10.0.0.1, ssh: root@one }
  - name: etcd-2
    address: 10.0.0.2 # rack 7
tuning: { election-timeout: 1000 } # as measured
`;
  const grown = withMember(text, { name: "etcd-3", address: "10.0.0.3" });
  assert.match(grown, /# rack 7\n {2}- name: etcd-3\n {4}address: 10\.0\.0\.3\n/);
  assert.equal(withoutMember(grown, "etcd-3"), text);
  const moved = withAddress(text, { name: "etcd-1", address: "10.0.0.9" });
  assert.equal(moved, text.replace("10.0.0.1, ssh: root@one", "10.0.0.9"));
  const tuned = withField(text, ["tuning", "election-timeout"], 2000);
  assert.equal(tuned, text.replace("1000", "2000"));
  assert.equal(
    parse(withField(tuned, ["tuning", "election-timeout"], undefined)).tuning["election-timeout"],
    undefined,
  );
  assert.equal(parse(withField("cluster: x\n", ["tuning", "snapshot-count"], 5)).tuning["snapshot-count"], 5);
  assert.throws(() => withoutMember(text, "etcd-9"), /the inventory has no member etcd-9/);
});
