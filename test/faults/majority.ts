/** The loss of a majority, and the two ways back: a backup, or a survivor that continues alone. */

import { once } from "node:events";
import { createWriteStream, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { isDeepStrictEqual } from "node:util";
import { KVService, MaintenanceService, RangeRequest, SnapshotRequest } from "../../src/proto/etcdserverpb.ts";
import { findProgram, run as runProgram } from "../harness/programs.ts";
import { type Answer, answerWrote, kvOf, text } from "../sim/checkers/model.ts";
import type { History } from "./history.ts";
import { Load } from "./load.ts";
import type { Run } from "./run.ts";
import { specOf } from "./run.ts";

/** Stock etcd's: KVORUM_STOCK_ETCDUTL, `etcdutl` or, before v3.5, `etcdctl`. */
const restorer = (): string | undefined =>
  findProgram(process.env["KVORUM_STOCK_ETCDUTL"] ?? "etcdutl") ?? findProgram("etcdctl");

export const restoreMissing = (): string | undefined =>
  restorer() === undefined ? "a backup is restored by stock etcdutl or etcdctl, which are not on PATH" : undefined;

/**
 * A backup is taken under load, then all members are lost with their disks. The restored cluster has everything
 * acknowledged before the backup began, at the same revisions, and continues from the backup's last one: later
 * revisions are assigned again.
 */
export async function loseMajorityAndRestore(run: Run): Promise<void> {
  const { cluster } = run;
  const home = mkdtempSync(join(tmpdir(), "kvorum-backup-"));
  try {
    await run.pass((run.settings.seconds * 1000) / 2);
    const file = join(home, "backup.db");
    const begun = run.load.recorder.now;
    await backUp(run, file);
    await run.pass(500);
    const before = await endLoad(run);
    const members = [...cluster.all];
    run.hit(...members);
    await Promise.all(members.map((member) => member.kill("SIGKILL")));
    const lostAt = run.load.recorder.now;
    for (const member of members) {
      rmSync(member.dataDir, { recursive: true, force: true });
      const initial = members.map(({ name, peerUrl }) => `${name}=${peerUrl}`).join(",");
      const args = ["snapshot", "restore", file, "--name", member.name, "--data-dir", member.dataDir];
      args.push("--initial-cluster", initial, "--initial-advertise-peer-urls", member.peerUrl);
      const result = await runProgram(restorer()!, args, { env: { ETCDCTL_API: "3" } });
      if (result.code !== 0) throw new Error(`the backup was not restored: ${result.stderr}`);
    }
    for (const member of members) member.spawn();
    await Promise.all(members.map((member) => member.healthy()));
    const { header } = await (await cluster.leader()).status();
    run.note(`restored and serving ${Math.round(run.load.recorder.now - lostAt)} ms after the loss`);
    const restored = header!.revision;
    const last = run.load.recorder.known;
    const lost = writesAfter(before, restored).filter(({ returned }) => returned < begun);
    if (lost.length > 0) run.problem(`${lost.length} writes that were acknowledged before the backup are not in it`);
    run.note(
      `the backup has revision ${restored} of ${last}: ${writesAfter(before, restored).length} writes acknowledged after it began are lost with the disks, and their revisions are given again`,
    );
    run.judgeInstead(cutAt(before, restored));
    await goOn(run, before);
  } finally {
    rmSync(home, { recursive: true, force: true });
  }
}

/** One member is left, with everything that was acknowledged. It removes the others and adds new ones. */
export async function loseMajorityAndForce(run: Run): Promise<void> {
  const { cluster, settings } = run;
  await run.pass((settings.seconds * 1000) / 2);
  const before = await endLoad(run);
  await cluster.settled();
  const [survivor, ...lost] = [...cluster.all];
  const count = cluster.all.length;
  run.hit(...lost);
  await Promise.all(cluster.all.map((member) => member.kill("SIGKILL")));
  for (const member of lost) {
    cluster.all.splice(cluster.all.indexOf(member), 1);
    await member.close();
  }
  const lostAt = run.load.recorder.now;
  const args = survivor!.clusterArgs;
  survivor!.clusterArgs = [...args, "--force-new-cluster"];
  await survivor!.start();
  run.note(`serving alone ${Math.round(run.load.recorder.now - lostAt)} ms after the loss`);
  await survivor!.kill("SIGTERM");
  survivor!.clusterArgs = args;
  await survivor!.start();
  for (let i = 0; i < lost.length; i++) await cluster.add(specOf(settings.kind, run.maybeHosts, count + i));
  run.judgeInstead(before);
  await goOn(run, before);
}

async function backUp(run: Run, file: string): Promise<void> {
  const { client } = await run.cluster.leader();
  const stream = client.stream(MaintenanceService.Snapshot, { timeoutMs: 30_000 });
  await stream.send(SnapshotRequest.create());
  stream.end();
  const output = createWriteStream(file);
  for await (const { blob } of stream) if (!output.write(blob)) await once(output, "drain");
  output.end();
  await once(output, "finish");
}

/** The load's history without the members' reports: the next cluster reports it again. */
async function endLoad(run: Run): Promise<History> {
  await run.load.stop();
  const { history, problems } = await run.load.finish();
  for (const problem of problems) run.problem(problem);
  return { ...history, watches: [], observed: [], leasesLeft: [] };
}

const writesAfter = ({ operations }: History, revision: number) =>
  operations.filter(
    ({ action, outcome }) =>
      action.kind !== "other" &&
      action.kind !== "compact" &&
      outcome.kind === "ok" &&
      outcome.revision > revision &&
      answerWrote(outcome.answer as Answer),
  );

/** The clients' observations up to a revision. Clients that saw more saw what is lost. */
const cutAt = (history: History, revision: number): History => ({
  ...history,
  operations: history.operations.filter(({ outcome }) => outcome.kind !== "ok" || outcome.revision <= revision),
});

async function goOn(run: Run, before: History): Promise<void> {
  await sameEverywhere(run);
  run.healed();
  const firstId = run.load.recorder.next() + 1_000;
  await run.load.close();
  run.load = new Load({ ...run.fault.load, firstId });
  run.load.start(run.cluster.all);
  run.note(`${before.operations.length} requests before the loss`);
  await run.pass((run.settings.seconds * 1000) / 2);
}

/** Each member by itself has the same keys. */
async function sameEverywhere(run: Run): Promise<void> {
  const request = RangeRequest.create({ key: Buffer.from([0]), rangeEnd: Buffer.from([0]), serializable: true });
  const states = await Promise.all(
    run.cluster.all.map(async ({ client }) => {
      const { kvs } = await client.unary(KVService.Range, request, { timeoutMs: 10_000 });
      return kvs.filter(({ key }) => !text(key).startsWith("lease/")).map(kvOf);
    }),
  );
  for (const state of states)
    if (!isDeepStrictEqual(state, states[0])) run.problem("restored members have different keys");
}
