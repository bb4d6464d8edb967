/**
 * A snapshot before an operation that touches all members or their data, beside the inventory: what is left should the
 * operation, or a mistake in it, cost the cluster.
 */
import { closeSync, existsSync, fsyncSync, openSync, renameSync, writeSync } from "node:fs";
import { dirname, join } from "node:path";
import { systemDisk } from "../../base/disk.ts";
import { messageOf } from "../../base/errors.ts";
import { makeDirs } from "../../base/make-dir.ts";
import { humanBytes } from "../../base/table.ts";
import { verifySnapshotFile } from "../../bolt/snapshot-file.ts";
import type { RawClient } from "../../client/raw.ts";
import { MaintenanceService } from "../../proto/etcdserverpb.ts";
import { Cluster } from "../cluster/access.ts";
import { DeployError } from "../common/context.ts";
import { PRIVATE_DIR_MODE, SECRET_MODE } from "../common/files.ts";
import type { Operation, Step } from "../steps/run.ts";
import { inventoryOf, type Tools, textOf } from "./tools.ts";
import { stampOf } from "./turn.ts";

/** The same operation with a snapshot as its first step. Where it goes is decided with the rest, and so written down. */
export function withSnapshot<Given extends object>(
  tools: Tools,
  operation: Operation<Given>,
): Operation<Given & { readonly snapshot?: string }> {
  return {
    ...operation,
    decide: async () => {
      const { cluster } = inventoryOf(tools, textOf(tools));
      const name = `${cluster}-${stampOf(tools.context)}.db`;
      return { ...(await operation.decide()), snapshot: join(dirname(tools.path), "snapshots", name) };
    },
    steps: (given) => {
      const steps = operation.steps(given);
      // An operation that an earlier version began has none.
      return given.snapshot === undefined ? steps : [snapshotStep(tools, given.snapshot), ...steps];
    },
  };
}

function snapshotStep(tools: Tools, path: string): Step {
  return {
    text: `save a snapshot of the cluster as ${path}`,
    isDone: async () => existsSync(path),
    run: async (tell) => {
      const part = `${path}.part`;
      const cluster = new Cluster(tools.context, inventoryOf(tools, textOf(tools)));
      try {
        makeDirs(dirname(path), PRIVATE_DIR_MODE);
        const sizeBytes = await cluster.answer((client) => receive(client, part));
        verifySnapshotFile(systemDisk, part);
        renameSync(part, path);
        systemDisk.syncDir(dirname(path));
        tell(`${humanBytes(sizeBytes)}; kvorum restore --snapshot brings it back\n`);
      } catch (error) {
        throw new DeployError(`no snapshot could be saved (--skip-snapshot does without): ${messageOf(error)}`);
      }
    },
  };
}

/** Returns the bytes that came. A member that is asked after another one failed begins the file again. */
async function receive(client: RawClient, path: string): Promise<number> {
  const file = openSync(path, "w", SECRET_MODE);
  try {
    const stream = client.stream(MaintenanceService.Snapshot);
    await stream.send({});
    stream.end();
    let at = 0;
    for await (const { blob } of stream) {
      for (let done = 0; done < blob.length; ) done += writeSync(file, blob, done, blob.length - done, at + done);
      at += blob.length;
    }
    fsyncSync(file);
    return at;
  } finally {
    closeSync(file);
  }
}
