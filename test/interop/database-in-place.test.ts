import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { systemDisk } from "../../src/base/disk.ts";
import { checkBolt } from "../../src/bolt/check.ts";
import { BoltReader } from "../../src/bolt/reader.ts";
import { KVService, LeaseService, MaintenanceService } from "../../src/proto/etcdserverpb.ts";
import { ourEtcd, requireStockEtcd, stockEtcd, stockEtcdVersion } from "../harness/programs.ts";
import { type Server, startServer } from "../harness/server.ts";

// What is installed cannot be asked for: Debian 12 has 3.4.
const skip =
  requireStockEtcd() ||
  (((await stockEtcdVersion()) ?? 0) < 3.005 && "stock etcd is older than 3.5, which opens no newer database");

const bytes = (text: string): Buffer => Buffer.from(text);

/** Revision and hash of the whole history, which both kinds compute alike. */
async function stateOf(server: Server): Promise<string> {
  const { header, hash, compactRevision } = await server.client.unary(MaintenanceService.HashKV, {});
  const { leases } = await server.client.unary(LeaseService.LeaseLeases, {});
  const ids = leases.map(({ id }) => String(id)).sort();
  return `${header!.revision} ${hash} ${compactRevision} ${ids}`;
}

async function change(server: Server, round: number): Promise<void> {
  const puts = Array.from({ length: 200 }, (_, i) => {
    return server.client.unary(KVService.Put, {
      key: bytes(`k${i % 150}`),
      value: Buffer.alloc((i * 37) % 3000, round),
    });
  });
  const answers = await Promise.all(puts);
  const { id } = await server.client.unary(LeaseService.LeaseGrant, { ttl: 3600 });
  await server.client.unary(KVService.Put, { key: bytes(`leased${round}`), value: bytes("x"), lease: id });
  await server.client.unary(KVService.DeleteRange, { key: bytes("k1"), rangeEnd: bytes("k12") });
  if (round % 2 === 1) {
    const { revision } = answers[50]!.header!;
    await server.client.unary(KVService.Compact, { revision, physical: true });
  }
}

test("ours and stock etcd take turns on one data directory, ended in order or killed", { skip }, async (t) => {
  const dataDir = mkdtempSync(join(tmpdir(), "kvorum-in-place-"));
  t.after(() => rmSync(dataDir, { recursive: true, force: true }));
  let state: string | undefined;
  for (let round = 0; round < 6; round++) {
    const isOurs = round % 2 === 0;
    const server = await startServer(isOurs ? ourEtcd() : stockEtcd(), { dataDir });
    try {
      if (state !== undefined) assert.equal(await stateOf(server), state, `round ${round}`);
      await change(server, round);
      state = await stateOf(server);
      await server.kill(round < 3 ? "SIGTERM" : "SIGKILL");
      const reader = new BoltReader({ disk: systemDisk, path: join(dataDir, "member", "snap", "db") });
      assert.deepEqual([...checkBolt(reader)], []);
      reader.close();
    } finally {
      await server.close();
    }
  }
});
