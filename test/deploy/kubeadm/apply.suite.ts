/**
 * `kvorum cluster kubeadm` with members that run: `npm run pods`, outside CI, as root, in a network of its own with the addresses
 * of kubeadm's guide. A host is a directory; in place of ssh a script runs what the host gets with paths in that directory, and
 * what it leaves behind for a kubelet is run as one would: the manifest's command.
 */
import assert from "node:assert/strict";
import { chmodSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { repositoryRoot, run } from "../../harness/programs.ts";
import { kvorum } from "../helpers.ts";

const ADDRESSES = ["10.159.238.10", "10.159.238.11", "10.159.238.12"];

test("kubeadm's external etcd is founded on three hosts, and changed one host after the other", async () => {
  if (process.env["INSIDE_ITS_NETWORK"] === undefined) return await inNetworkOfItsOwn();
  const cwd = mkdtempSync(join(tmpdir(), "kvorum-kubeadm-"));
  // On one machine a member seems to come from the address that it calls.
  const names = ADDRESSES.map((address) => `"${address}"`).join(", ");
  const member = (address: string, i: number) =>
    `  - { name: k8s-m0${i + 1}, address: ${address}, names: [${names}] }\n`;
  const members = ADDRESSES.map(member).join("");
  const inventory = (more: string) =>
    writeFileSync(join(cwd, "cluster.yml"), `cluster: k8s\nloopback: false\nmembers:\n${members}${more}`);
  for (const name of ["bin", "hosts"]) mkdirSync(join(cwd, name));
  for (const [name, text] of Object.entries({ ssh: SSH, systemctl: "#!/bin/sh\n" })) {
    writeFileSync(join(cwd, "bin", name), text);
    chmodSync(join(cwd, "bin", name), 0o755);
  }
  const env = {
    PATH: `${join(cwd, "bin")}:${process.env["PATH"]}`,
    HOSTS: join(cwd, "hosts"),
    ETCD: `${process.execPath} ${join(repositoryRoot, "bin", "etcd")}`,
  };
  const apply = () => kvorum({ cwd, env }, "cluster", "kubeadm");
  try {
    inventory("");
    const founded = await apply();
    assert.equal(founded.code, 0, founded.err + founded.out);
    assert.equal(founded.out.match(/which starts its pod/g)?.length, 3);
    const again = await apply();
    assert.match(again.out, /^nothing differs\n/, again.err);

    inventory('tuning: { snapshot-count: 20000 }\nkubeadm: { image: "kvorum:2" }\n');
    const changed = await apply();
    assert.equal(changed.code, 0, changed.err + changed.out);
    assert.equal(changed.out.match(/which restarts its pod/g)?.length, 3);
    const logs = ADDRESSES.map((address) => readFileSync(join(cwd, "hosts", address, "log"), "utf8"));
    for (const log of logs) {
      assert.equal(log.match(/"msg":"ready to serve client requests"/g)?.length, 2);
      assert.match(log, /"snapshot-count":20000/);
    }
  } finally {
    for (const host of readdirSync(join(cwd, "hosts"))) {
      const pid = Number(readFileSync(join(cwd, "hosts", host, "pid"), "utf8"));
      try {
        process.kill(pid, "SIGKILL");
      } catch {
        // It has ended.
      }
    }
    rmSync(cwd, { recursive: true, force: true });
  }
});

async function inNetworkOfItsOwn(): Promise<void> {
  const commands = [
    "ip link set lo up",
    ...ADDRESSES.map((address) => `ip address add ${address}/32 dev lo`),
    'exec "$@"',
  ];
  const inside = [process.execPath, "--import", "tsx", "--test-force-exit", fileURLToPath(import.meta.url)];
  const env = { INSIDE_ITS_NETWORK: "1", NODE_TEST_CONTEXT: undefined };
  const ran = await run("unshare", ["--net", "sh", "-ec", commands.join("\n"), "sh", ...inside], {
    env,
    timeoutMs: 120_000,
  });
  assert.equal(ran.code, 0, `${ran.stdout}${ran.stderr}`);
}

/** A manifest that differs from the one that runs ends its process, and starts another. */
const SSH = `#!/bin/sh
while [ "$1" != -- ]; do shift; done
host=$HOSTS/$2
mkdir -p "$host"
sed "s#'/#'$host/#g" | PATH=$PATH sh -s || exit
manifest=$host/etc/kubernetes/manifests/etcd.yaml
[ -f "$manifest" ] || exit 0
cmp -s "$manifest" "$host/runs" && exit 0
cp "$manifest" "$host/runs"
if [ -f "$host/pid" ]; then
  kill "$(cat "$host/pid")"
  while kill -0 "$(cat "$host/pid")" 2>/dev/null; do sleep 0.1; done
fi
flags=$(sed -n 's/^ *- \\(--.*\\)$/\\1/p' "$manifest" | sed "s#=/#=$host/#; s#listen-metrics-urls=.*#listen-metrics-urls=#" | grep -v metrics)
setsid $ETCD $flags >>"$host/log" 2>&1 &
echo $! >"$host/pid"
`;
