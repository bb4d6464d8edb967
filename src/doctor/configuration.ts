/** A member's configuration, read by the code that the member reads it with, against its directory and the machine. */
import { statfsSync } from "node:fs";
import { resolve } from "node:path";
import type { Clock } from "../base/clock.ts";
import type { Disk } from "../base/disk.ts";
import { nullLogger } from "../base/log.ts";
import { createLogger } from "../base/log-logger.ts";
import type { Environment } from "../base/systemd.ts";
import { humanBytes } from "../base/table.ts";
import type { Config } from "../config/config.ts";
import { ConfigError } from "../config/errors.ts";
import { finishConfig, loadConfig } from "../config/load/load.ts";
import { findDefaultHost } from "../config/machine/default-host.ts";
import { formatId } from "../membership/member.ts";
import { Wal } from "../wal/wal.ts";
import { examineCertificateFiles } from "./certificate-files.ts";
import { type DirectoryReport, examineDirectory, examineSpace, examineSpeed } from "./directory.ts";
import type { Finding } from "./finding.ts";
import { examineStart, foundedClusterId } from "./first-start.ts";
import { examinePorts } from "./ports.ts";

export interface ConfigurationOptions {
  /** The arguments of etcd. */
  readonly argv: readonly string[];
  /** Variables that etcd reads. */
  readonly env: Environment;
  /** Instead of the configuration's. */
  readonly dataDir: string | undefined;
  readonly walDir: string | undefined;
  readonly disk: Disk;
  readonly clock: Clock;
}

const QUOTA_DEFAULT_BYTES = 2 * 1024 ** 3;
const QUOTA_SHARE = 0.8;

export async function examineConfiguration(options: ConfigurationOptions): Promise<Finding[]> {
  const { disk, clock } = options;
  const config = await read(options);
  if (!("name" in config)) {
    const directory =
      options.dataDir === undefined ? [] : examineDirectory({ ...options, dataDir: options.dataDir }).findings;
    return [config.problem, ...directory];
  }
  const dataDir = options.dataDir ?? resolve(config.dataDir);
  const walDir = options.walDir ?? (config.walDir === "" ? undefined : resolve(config.walDir));
  const report = examineDirectory({ disk, clock, dataDir, walDir, timing: config });
  const isEmpty = report.findings.some(({ code }) => code === "directory-empty");
  const isRunning = report.findings.some(({ code }) => code === "directory-in-use");
  const found: Finding[] = [
    {
      severity: "ok",
      code: "configuration",
      subject: "configuration",
      text: `member ${config.name}, data in ${dataDir}`,
    },
    // What an empty directory means depends on the cluster: it is told below.
    ...report.findings.filter(({ code }) => code !== "directory-empty"),
    ...examineCertificateFiles(config, clock.wallMs()),
    ...(isRunning ? [] : await examinePorts(config)),
    ...(await examineStart(config, dataDir, report, clock)),
    ...compareFounding(config, report),
  ];
  if (isEmpty) {
    const parent = existingParent(disk, dataDir);
    examineSpace(parent, found);
    examineSpeed(disk, clock, parent, config, found);
  }
  found.push(...examineQuota(config, disk, dataDir, isEmpty));
  return found;
}

/** The configuration, or why there is none. */
async function read(options: ConfigurationOptions): Promise<Config | { readonly problem: Finding }> {
  const { argv, env, clock, disk } = options;
  const silent = createLogger({ level: "fatal", format: "json", sinks: [], clock });
  try {
    const loaded = await loadConfig({ argv, env, clock, early: silent, keepEarlyLog: true });
    if (loaded.kind === "failed") return { problem: refusal(loaded.error) };
    if (loaded.kind !== "loaded")
      return { problem: refusal(new ConfigError("flags", `--${loaded.kind} is no configuration`)) };
    return await finishConfig(loaded.settings, {
      clock,
      log: nullLogger,
      defaultHost: findDefaultHost,
      isInitialized: (config) => {
        const dataDir = options.dataDir ?? resolve(config.dataDir);
        const walDir = options.walDir ?? (config.walDir === "" ? `${dataDir}/member/wal` : resolve(config.walDir));
        return Wal.exists(disk, walDir);
      },
    });
  } catch (error) {
    if (error instanceof ConfigError) return { problem: refusal(error) };
    throw error;
  }
}

/** By the moment at which the member would refuse it. */
const refusal = ({ kind, message }: ConfigError): Finding => ({
  severity: "problem",
  code: kind === "start" ? "start-refused" : "configuration-invalid",
  subject: "configuration",
  text: `the member would not start: ${message}`,
  next: [adviceFor(message)],
});

function adviceFor(message: string): string {
  if (/couldn't find local name/.test(message)) {
    return "give --name one of the names in --initial-cluster, or add this member there: every member has the same --initial-cluster";
  }
  if (/missing from --initial-advertise-peer-urls|missing from --initial-cluster|failed to resolve/.test(message)) {
    return "write the same peer URL in --initial-advertise-peer-urls and, after this member's name, in --initial-cluster";
  }
  if (/duplicate url/.test(message)) return "give each member in --initial-cluster a URL of its own";
  return "correct it: docs/configuration.md describes each setting";
}

/** A member with data keeps its cluster whatever the flags say; that they differ may still be a mistake. */
function compareFounding(config: Config, { log }: DirectoryReport): Finding[] {
  if (log === undefined || config.initialClusterState !== "new" || config.discovery.endpoints.length > 0) return [];
  const founded = foundedClusterId(config);
  if (founded === log.clusterId) return [];
  return [
    {
      severity: "note",
      code: "flags-of-another-cluster",
      subject: "start",
      text: `--initial-cluster and --initial-cluster-token would found cluster ${formatId(founded)}, and the data is of ${formatId(log.clusterId)}: a member with data ignores them, and they differ wherever members were added or replaced`,
    },
  ];
}

function examineQuota(config: Config, disk: Disk, dataDir: string, isEmpty: boolean): Finding[] {
  const quota = config.quotaBackendBytes === 0 ? QUOTA_DEFAULT_BYTES : config.quotaBackendBytes;
  if (quota < 0) return [];
  const subject = "space";
  const path = `${dataDir}/member/snap/db`;
  const size = !isEmpty && disk.exists(path) ? sizeOf(disk, path) : 0;
  const { bavail, bsize } = statfsSync(existingParent(disk, dataDir));
  const free = bavail * bsize;
  const found: Finding[] = [];
  if (size >= quota * QUOTA_SHARE) {
    const text = `the database has ${humanBytes(size)} and its quota is ${humanBytes(quota)}: at the quota, writes are refused`;
    const next = ["etcdctl compaction and etcdctl defrag, or a larger --quota-backend-bytes, up to 8 GiB"];
    found.push({ severity: "warning", code: "quota-near", subject, text, next });
  }
  if (size + free < quota) {
    const text = `the disk is full before the quota is reached: ${humanBytes(free)} are free, the database has ${humanBytes(size)} of ${humanBytes(quota)}`;
    const next = [
      "give the disk more room, or set --quota-backend-bytes to what it can hold: a refused write is easier to recover from than a full disk",
    ];
    found.push({ severity: "warning", code: "quota-beyond-disk", subject, text, next });
  }
  return found;
}

function sizeOf(disk: Disk, path: string): number {
  const file = disk.open(path, "r");
  try {
    return file.size();
  } finally {
    file.close();
  }
}

/** The directory itself, or the nearest one above it that exists. */
function existingParent(disk: Disk, path: string): string {
  let parent = path;
  while (!disk.exists(parent)) parent = resolve(parent, "..");
  return parent;
}
