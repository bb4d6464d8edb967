/** `etcdctl snapshot` */
import { dirname } from "node:path";
import type { DiskFile } from "../../base/disk.ts";
import { goDuration } from "../../base/duration.ts";
import { isText } from "../../base/lossless-text.ts";
import { humanBytes } from "../../base/table.ts";
import { BoltError } from "../../bolt/format.ts";
import { hasTrailer, verifySnapshotFile } from "../../bolt/snapshot-file.ts";
import { MaintenanceService } from "../../proto/etcdserverpb.ts";
import type { Ctl, CtlCommand } from "../ctl.ts";
import { badArgs, describeError, EXIT, ExitError } from "../exit.ts";
import { log } from "../io.ts";

const save: CtlCommand = {
  name: "save",
  usage: "<filename>",
  short: "Saves the data of a member to a file",
  long: `Saves the data of a member to a file, which "etcdutl snapshot restore" makes a cluster of. Ask one endpoint. Takes as
long as it takes, unless --command-timeout is given.`,
  example: `etcdctl snapshot save /backup/etcd.db
etcdctl --endpoints=https://10.0.0.1:2379 --cacert=ca.crt --cert=client.crt --key=client.key snapshot save etcd.db`,
  async run(ctl) {
    const [path, ...more] = ctl.args;
    if (path === undefined || more.length > 0) throw badArgs("snapshot save expects one argument <filename>");
    if (!isText(path)) throw badArgs("the name of the file is not UTF-8");
    const cluster = await ctl.cluster();
    if (cluster.endpoints.length !== 1) {
      const list = cluster.endpoints.join(" ");
      throw new ExitError(EXIT.interrupted, `snapshot must be requested to one selected node, not multiple [${list}]`);
    }
    try {
      const version = await saveTo(ctl, path);
      ctl.io.out(`Snapshot saved at ${path}\n${version === "" ? "" : `Server version ${version}\n`}`);
    } catch (error) {
      throw new ExitError(EXIT.interrupted, error instanceof ExitError ? error.message : describeError(error));
    }
  },
};

/** Receives into `path.part` and renames it once it is complete, verified and synced. Returns the server's version. */
async function saveTo(ctl: Ctl, path: string): Promise<string> {
  const { disk, clock } = ctl.io;
  const cluster = await ctl.cluster();
  const part = `${path}.part`;
  const file = disk.open(part, "w", 0o600);
  try {
    info(ctl, "created temporary db file", { path: part });
    const startMs = clock.nowMs();
    const limits = ctl.flags.changed("command-timeout") ? { timeoutMs: ctl.timeoutMs } : {};
    const { bytes, version } = await receive(ctl, file, limits);
    if (!hasTrailer(bytes)) throw new ExitError(EXIT.interrupted, `sha256 checksum not found [bytes: ${bytes}]`);
    file.dataSync();
    try {
      verifySnapshotFile(disk, part);
    } catch (error) {
      if (error instanceof BoltError)
        throw new ExitError(EXIT.interrupted, `the snapshot arrived damaged: ${error.message}`);
      throw error;
    }
    info(ctl, "fetched snapshot", {
      endpoint: cluster.endpoints[0],
      size: humanBytes(bytes),
      took: goDuration(clock.nowMs() - startMs),
      "etcd-version": version,
    });
    disk.rename(part, path);
    disk.syncDir(dirname(path));
    info(ctl, "saved", { path });
    return version;
  } finally {
    file.close();
    if (disk.exists(part)) disk.remove(part);
  }
}

async function receive(ctl: Ctl, file: DiskFile, limits: { readonly timeoutMs?: number }) {
  const cluster = await ctl.cluster();
  let bytes = 0;
  let version = "";
  for await (const response of cluster.responses(MaintenanceService.Snapshot, {}, limits)) {
    if (bytes === 0) info(ctl, "fetching snapshot", { endpoint: cluster.endpoints[0] });
    file.write(response.blob, bytes);
    bytes += response.blob.length;
    version = response.version || version;
  }
  return { bytes, version };
}

const info = (ctl: Ctl, message: string, fields: Readonly<Record<string, unknown>>) =>
  log(ctl.io, "info", message, fields);

export const snapshot: CtlCommand = { name: "snapshot", short: "Saves the data of a member", commands: [save] };
