/**
 * Kills the server with SIGKILL at random moments under load and while it starts, and compares the store with the
 * acknowledged writes. KVORUM_CRASHES sets how often (8 by default), KVORUM_SEED the operations.
 *
 * A killed process loses what it had not written, not what the kernel had not synced: the simulator covers power loss.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import {
  type HashKVResponse,
  KVService,
  MaintenanceService,
  WatchCreateRequest,
  WatchService,
} from "../../src/proto/etcdserverpb.ts";
import { ourEtcd } from "../harness/programs.ts";
import { type SeededRandom, seeded } from "../harness/random.ts";
import { type Server, startServer } from "../harness/server.ts";
import { patience, waitFor } from "../harness/wait.ts";
import { prefixEnd } from "../interop/history.ts";
import { CrashLoad } from "./crash-load.ts";

const crashes = Number(process.env["KVORUM_CRASHES"] ?? 8);
const seed = Number(process.env["KVORUM_SEED"] ?? 1);
const WRITERS = 16;
const HASHES_KEPT = 3;
const COMPACT_EVERY = 3;

test(`after ${crashes} kills under load nothing acknowledged is lost, nothing is applied twice`, async (t) => {
  const random = seeded(seed);
  const server = await startServer(ourEtcd());
  try {
    const load = new CrashLoad(server.client, random, WRITERS);
    let compacted = 0;
    for (let crash = 1; crash <= crashes; crash++) {
      const hashes = await killUnderLoad(server, load, random);
      if (random.chance(0.25)) await killDuringStart(server, random);
      await server.start();
      const revision = await load.verify();
      assert.ok(revision >= load.acknowledgedRevision, "revisions do not go back");
      await compareHashes(server, hashes);
      await checkHistory(server, compacted + 1, revision);
      if (crash % COMPACT_EVERY === 0) {
        compacted = revision - random.below(Math.min(100, revision - compacted));
        await server.client.unary(KVService.Compact, { revision: compacted });
      }
    }
    t.diagnostic(
      `${load.acknowledged} acknowledged, ${load.open} open at a kill, of which ${load.openApplied} applied`,
    );
    assert.ok(load.acknowledged > crashes * WRITERS, "the load did something between the kills");
  } catch (error) {
    throw new Error(`seed ${seed}: ${(error as Error).stack}\nthe server's last lines:\n${server.log().slice(-3000)}`);
  } finally {
    await server.close();
  }
});

/** Returns the hashes that the server reported before it died. */
async function killUnderLoad(server: Server, load: CrashLoad, random: SeededRandom): Promise<HashKVResponse[]> {
  const hashes: HashKVResponse[] = [];
  let killed = false;
  const floor = load.acknowledged;
  const writing = load.run(() => killed);
  const hashing = (async () => {
    while (!killed) {
      const revision = load.acknowledgedRevision;
      const hash = await server.client.unary(MaintenanceService.HashKV, { revision }).catch(() => undefined);
      if (hash) hashes.push({ ...hash, hashRevision: revision });
      if (hashes.length > HASHES_KEPT) hashes.shift();
      await sleep(20);
    }
  })();
  try {
    await Promise.race([
      writing,
      waitFor("some writes are acknowledged", () => load.acknowledged > floor + WRITERS * 2, 20_000),
    ]);
    await sleep(random.below(300));
  } finally {
    killed = true;
    await server.kill("SIGKILL");
  }
  await Promise.all([writing, hashing]);
  return hashes;
}

async function killDuringStart(server: Server, random: SeededRandom): Promise<void> {
  const start = server.start().catch(() => undefined);
  await sleep(random.below(600));
  await server.kill("SIGKILL");
  await start;
}

/** Data hashed before the server died has the same hash afterwards, unless compaction continued in between. */
async function compareHashes(server: Server, hashes: readonly HashKVResponse[]): Promise<void> {
  for (const { hash, compactRevision, hashRevision } of hashes) {
    const after = await server.client.unary(MaintenanceService.HashKV, { revision: hashRevision });
    if (after.compactRevision !== compactRevision) continue;
    assert.equal(after.hash, hash, `hash of revision ${hashRevision} after the restart`);
  }
}

/** Every revision since the compaction is in the history once, in order. */
async function checkHistory(server: Server, from: number, to: number): Promise<void> {
  if (from > to) return;
  const stream = server.client.stream(WatchService.Watch, { timeoutMs: patience(30_000) });
  const key = Buffer.from("w/");
  await stream.send({
    createRequest: WatchCreateRequest.create({ key, rangeEnd: prefixEnd(key), startRevision: Math.max(from, 2) }),
  });
  const seen = new Set<string>();
  let next = Math.max(from, 2);
  for await (const { events } of stream) {
    for (const { kv } of events) {
      const { modRevision } = kv!;
      const id = `${modRevision} ${Buffer.from(kv!.key)}`;
      assert.ok(!seen.has(id), `event ${id} came twice`);
      seen.add(id);
      assert.ok(modRevision === next || modRevision === next - 1, `revision ${modRevision} follows ${next - 1}`);
      next = modRevision + 1;
    }
    if (next > to) break;
  }
  assert.equal(next, to + 1, "the history reaches the store's revision");
}
