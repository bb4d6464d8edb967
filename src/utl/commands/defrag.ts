/** `etcdutl defrag` */
import { systemText } from "../../base/system-error.ts";
import { humanBytes } from "../../base/table.ts";
import { databaseOf, rewriteDatabase, statFile } from "../database.ts";
import { EXIT, ExitError, type UtlCommand } from "../utl.ts";

export const defrag: UtlCommand = {
  name: "defrag",
  short: "Defragments the storage of the etcd",
  flags: [
    {
      name: "data-dir",
      kind: "string",
      value: "",
      usage: "Required. Defragments a data directory not in use by etcd.",
    },
  ],
  required: ["data-dir"],
  async run(utl) {
    const dataDir = utl.flags.string("data-dir");
    const path = databaseOf(dataDir);
    try {
      statFile(utl.io, path);
      const before = sizeOf(utl.io.disk, path);
      utl.logger.info("defragmenting", {
        path,
        "current-db-size-bytes": before,
        "current-db-size": humanBytes(before),
      });
      const { sizeBytes } = await rewriteDatabase(utl, path, []);
      utl.logger.info("finished defragmenting directory", {
        path,
        "current-db-size-bytes-diff": sizeBytes - before,
        "current-db-size-bytes": sizeBytes,
        "current-db-size": humanBytes(sizeBytes),
      });
    } catch (error) {
      throw new ExitError(EXIT.error, `Failed to defragment etcd data[${dataDir}] (${systemText(error)})`);
    }
  },
};

function sizeOf(disk: { open(path: string, flags: "r"): { size(): number; close(): void } }, path: string): number {
  const file = disk.open(path, "r");
  try {
    return file.size();
  } finally {
    file.close();
  }
}
