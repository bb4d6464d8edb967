/** `etcdutl snapshot` */
import { isAbsolute, resolve } from "node:path";
import type { Flag } from "../../base/flags.ts";
import { humanBytes } from "../../base/table.ts";
import { BoltReader } from "../../bolt/reader.ts";
import { verifyBootstrap } from "../../config/checks/bootstrap.ts";
import { parseUrls, parseUrlsByMember, urlTexts } from "../../config/values/url.ts";
import { initialMembers, memberByName } from "../../membership/initial.ts";
import { statFile } from "../database.ts";
import { checkFormat, print } from "../print.ts";
import { restoreSnapshot } from "../restore.ts";
import { statusOf } from "../status.ts";
import { badArgs, type Utl, type UtlCommand } from "../utl.ts";

const status: UtlCommand = {
  name: "status",
  usage: "<filename>",
  short: "Gets backend snapshot status of a given file",
  long: `Checks the file and prints its hash, revision, keys, size and storage version.`,
  run(utl) {
    const { args, io } = utl;
    const [path, ...more] = args;
    if (path === undefined || more.length > 0) throw badArgs("snapshot status requires exactly one argument");
    statFile(io, path);
    checkFormat(utl);
    const reader = new BoltReader({ disk: io.disk, path });
    try {
      const { hash, revision, totalKey, totalSize, version } = statusOf(reader);
      print(utl, {
        headings: ["hash", "revision", "total keys", "total size", "version"],
        row: [hash.toString(16), String(revision), String(totalKey), humanBytes(totalSize), version],
        fields: [
          ["Hash", hash],
          ["Revision", revision],
          ["Keys", totalKey],
          ["Size", totalSize],
          ["Version", version],
        ],
        json: { hash, revision, totalKey, totalSize, version },
        goType: "snapshot.Status",
        goValue: `{${hash} ${revision} ${totalKey} ${totalSize} ${version}}`,
      });
    } finally {
      reader.close();
    }
  },
};

/** What the cluster that a snapshot founds is to be. */
export const NEW_CLUSTER_FLAGS: readonly Flag[] = [
  {
    name: "initial-advertise-peer-urls",
    kind: "string",
    value: "http://localhost:2380",
    usage: "List of this member's peer URLs to advertise to the rest of the cluster",
  },
  {
    name: "initial-cluster",
    kind: "string",
    value: "default=http://localhost:2380",
    usage: "Initial cluster configuration for restore bootstrap",
  },
  {
    name: "initial-cluster-token",
    kind: "string",
    value: "etcd-cluster",
    usage: "Initial cluster token for the etcd cluster during restore bootstrap",
  },
  { name: "name", kind: "string", value: "default", usage: "Human-readable name for this member" },
];

const restore: UtlCommand = {
  name: "restore",
  usage: "<filename> --data-dir {output dir} [options]",
  short: "Restores an etcd member snapshot to an etcd directory",
  example: `etcdutl snapshot restore backup.db --data-dir /var/lib/etcd
etcdutl snapshot restore backup.db --data-dir /var/lib/etcd --name m1 \\
  --initial-cluster m1=http://10.0.0.1:2380,m2=http://10.0.0.2:2380,m3=http://10.0.0.3:2380 \\
  --initial-advertise-peer-urls http://10.0.0.1:2380`,
  flags: [
    {
      name: "bump-revision",
      kind: "uint",
      value: 0,
      usage: "How much to increase the latest revision after restore",
    },
    { name: "data-dir", kind: "string", value: "", usage: "Path to the output data directory" },
    ...NEW_CLUSTER_FLAGS,
    {
      name: "initial-memory-map-size",
      kind: "uint",
      value: 10_737_418_240,
      usage:
        "Initial memory map size of the database in bytes. It uses the default value if not defined or defined to 0",
    },
    {
      name: "mark-compacted",
      kind: "bool",
      value: false,
      usage:
        "Mark the latest revision after restore as the point of scheduled compaction (required if --bump-revision > 0, disallowed otherwise)",
    },
    {
      name: "skip-hash-check",
      kind: "bool",
      value: false,
      usage: "Ignore snapshot integrity hash value (required if copied from data directory)",
    },
    {
      name: "wal-dir",
      kind: "string",
      value: "",
      usage: "Path to the WAL directory (use --data-dir if none given)",
    },
  ],
  async run(utl) {
    const { args, flags, io, logger } = utl;
    const [path, ...more] = args;
    if (path === undefined || more.length > 0) throw badArgs("snapshot restore requires exactly one argument");
    const bumpRevision = flags.number("bump-revision");
    if (bumpRevision > 0 !== flags.bool("mark-compacted")) {
      throw badArgs("--mark-compacted required if --revision-bump > 0");
    }
    const { members, local } = await readCluster(utl);
    const dataDir = absolute(flags.string("data-dir") || `${flags.string("name")}.etcd`);
    const walDir = flags.string("wal-dir");
    logger.info("restoring snapshot", {
      path,
      "wal-dir": walDir === "" ? `${dataDir}/member/wal` : walDir,
      "data-dir": dataDir,
      "snap-dir": `${dataDir}/member/snap`,
    });
    restoreSnapshot({
      io,
      logger,
      snapshotPath: absolute(path),
      dataDir,
      walDir: walDir === "" ? undefined : absolute(walDir),
      members,
      local,
      skipHashCheck: flags.bool("skip-hash-check"),
      bumpRevision,
    });
  },
};

/** The new cluster, with a member's checks at its first start. */
export async function readCluster({ flags, io, logger }: Pick<Utl, "flags" | "io" | "logger">) {
  const name = flags.string("name");
  const initialCluster = flags.string("initial-cluster");
  const advertisePeerUrls = parseUrls(flags.string("initial-advertise-peer-urls"));
  const byMember = parseUrlsByMember(initialCluster);
  await verifyBootstrap(
    { name, initialCluster, initialClusterState: "new", advertisePeerUrls, discovery: { endpoints: [] } },
    { clock: io.clock, log: logger },
  );
  const urls = new Map([...byMember].map(([member, list]) => [member, urlTexts(list)] as const));
  const members = initialMembers(urls, flags.string("initial-cluster-token"));
  return { members, local: memberByName(members, name) };
}

const absolute = (path: string): string => (isAbsolute(path) ? path : resolve(path));

export const snapshot: UtlCommand = {
  name: "snapshot",
  short: "Manages etcd node snapshots",
  commands: [restore, status],
};
