import assert from "node:assert/strict";
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { systemClock } from "../../../src/base/clock.ts";
import { systemDisk } from "../../../src/base/disk.ts";
import { systemRandom } from "../../../src/base/random.ts";
import { verifySnapshotFile } from "../../../src/bolt/snapshot-file.ts";
import type { Context } from "../../../src/deploy/common/context.ts";
import { certificateSet, parseInventory } from "../../../src/deploy/inventory/inventory.ts";
import { withSnapshot } from "../../../src/deploy/operations/snapshot.ts";
import { makeSet } from "../../../src/deploy/pki/set.ts";
import { carryOut, type Operation } from "../../../src/deploy/steps/run.ts";
import { NO_TLS } from "../../../src/rpc/tls/context.ts";
import { startInProcess, tempDir } from "../../harness/in-process.ts";

test("a risky operation begins when a snapshot is saved beside the inventory, and not before", async () => {
  const dir = tempDir();
  const path = join(dir.path, "cluster.yml");
  const inventoryAt = (port: number) => `cluster: prod
members:
  - { name: m1, address: 127.0.0.1 }
ports: { client: ${port}, peer: 2380 }
`;
  const context: Context = {
    args: [],
    cwd: dir.path,
    env: {},
    clock: systemClock,
    random: systemRandom,
    self: { file: "", args: [] },
    out: () => {},
    err: () => {},
  };
  const deeds: string[] = [];
  const operation: Operation<{ readonly number: number }> = {
    name: "test",
    subject: "",
    decide: async () => ({ number: 1 }),
    steps: () => [{ text: "do it", run: async () => void deeds.push("done") }],
  };
  const manner = { inventoryPath: path, command: "kvorum cluster test", isDry: false, isJson: false };
  const attempt = () => carryOut(context, withSnapshot({ context, path }, operation), manner);
  writeFileSync(path, inventoryAt(1));
  const inventory = parseInventory(inventoryAt(1), path);
  await makeSet(certificateSet(inventory), { nowMs: Date.now(), random: systemRandom });
  const pki = inventory.certificates.dir;
  const server = await startInProcess({
    etcd: {
      listenClient: [{ kind: "tcp", host: "127.0.0.1", port: 0, url: "https://127.0.0.1:0" }],
      clientTls: {
        ...NO_TLS,
        certFile: join(pki, "members", "m1", "server.crt"),
        keyFile: join(pki, "members", "m1", "server.key"),
        trustedCaFile: join(pki, "ca.crt"),
        clientCertAuth: true,
        minVersion: "TLS1.2",
        autoTls: false,
        selfSignedCertValidityYears: 1,
      },
    },
  });
  try {
    await assert.rejects(attempt(), /no snapshot could be saved \(--skip-snapshot does without\)/);
    assert.deepEqual(deeds, []);
    writeFileSync(path, inventoryAt(Number(new URL(server.url).port)));
    await attempt();
    assert.deepEqual(deeds, ["done"]);
    const [name, ...more] = readdirSync(join(dir.path, "snapshots"));
    assert.deepEqual(more, []);
    assert.match(name!, /^prod-\d{8}-\d{6}\.db$/);
    assert.ok(verifySnapshotFile(systemDisk, join(dir.path, "snapshots", name!)) > 0);
    const log = readdirSync(dir.path).find((file) => file.endsWith(".log"));
    assert.ok(log !== undefined && readFileSync(join(dir.path, log), "utf8").includes("save a snapshot"));
    assert.ok(!existsSync(join(dir.path, "snapshots", `${name}.part`)));
  } finally {
    await server.close();
    dir.remove();
  }
});
