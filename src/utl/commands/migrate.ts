/** `etcdutl migrate` */

import { quote } from "../../base/quote.ts";
import { compareVersions, parseVersion, type Version } from "../../base/semver.ts";
import type { BoltReader } from "../../bolt/reader.ts";
import { metaKeys } from "../../mvcc/backend/backend.ts";
import { LogVersion } from "../../server/duties/log-version.ts";
import { type MetaFields, StorageVersion } from "../../server/duties/storage-version.ts";
import { Wal } from "../../wal/wal.ts";
import { databaseOf, openDatabase, rewriteDatabase, statFile, walDirOf } from "../database.ts";
import { badArgs, EXIT, ExitError, type Utl, type UtlCommand } from "../utl.ts";

export const migrate: UtlCommand = {
  name: "migrate",
  short: "Migrates schema of etcd data dir files to make them compatible with different etcd version",
  flags: [
    { name: "data-dir", kind: "string", value: "", usage: "Path to the etcd data dir" },
    {
      name: "force",
      kind: "bool",
      value: false,
      usage: "Ignore migration failure and forcefully override storage version. Not recommended.",
    },
    {
      name: "target-version",
      kind: "string",
      value: "",
      usage: 'Target etcd version to migrate contents of data dir. Minimal value 3.5. Format "X.Y" for example 3.6.',
    },
  ],
  required: ["data-dir", "target-version"],
  async run(utl) {
    const target = readTarget(utl.flags.string("target-version"));
    const dataDir = utl.flags.string("data-dir");
    const path = databaseOf(dataDir);
    statFile(utl.io, path);
    const reader = await openDatabase(utl, path);
    let meta: EditedMeta;
    try {
      meta = new EditedMeta(reader);
    } finally {
      reader.close();
    }
    await bringTo(utl, dataDir, meta, target);
    if (!meta.isChanged) return;
    await rewriteDatabase(utl, path, [{ name: "meta", entries: () => meta.entries() }]);
  },
};

function readTarget(text: string): Version {
  if (text.split(".").length !== 2) {
    throw badArgs(`wrong target version format, expected "X.Y", got ${quote(text)}`);
  }
  const version = parseVersion(`${text}.0`);
  if (version === undefined) {
    const part = text.split(".").find((each) => !/^\d+$/.test(each)) ?? text;
    throw badArgs(`failed to parse target version: strconv.ParseInt: parsing ${quote(part)}: invalid syntax`);
  }
  if (compareVersions(version, V3_5) < 0)
    throw badArgs(`target version "${minor(version)}" not supported. Minimal "3.5"`);
  return version;
}

async function bringTo({ flags, logger, io }: Utl, dataDir: string, meta: EditedMeta, target: Version): Promise<void> {
  const entries = () => {
    const dir = walDirOf(dataDir);
    const snapshot = Wal.validSnapshotEntries(io.disk, dir, logger).at(-1) ?? { index: 0, term: 0 };
    return Wal.openForRead({ disk: io.disk, dir, logger, snapshot }).readAll().entries;
  };
  const storage = new StorageVersion({
    backend: () => meta,
    logger,
    term: () => meta.term,
    logVersion: () => new LogVersion(entries()).since(0),
  });
  const current = storage.detected;
  if (current === undefined) {
    logger.error("failed to detect storage version. Please make sure you are using data dir from etcd v3.5 and older");
    throw new ExitError(EXIT.error, "missing term information");
  }
  if (compareVersions(current, target) === 0) {
    logger.info("storage version up-to-date", { "storage-version": minor(current) });
    return;
  }
  try {
    storage.migrate(target);
  } catch (error) {
    if (!flags.bool("force")) throw error;
    logger.info("normal migrate failed, trying with force", { error: (error as Error).message });
    if (compareVersions(target, V3_6) < 0) {
      meta.delete("meta", metaKeys.storageVersion);
      logger.warn("forcefully cleared storage version");
    } else {
      meta.put("meta", metaKeys.storageVersion, Buffer.from(`${minor(target)}.0`));
      logger.warn("forcefully set storage version", { "storage-version": minor(target) });
    }
  }
}

const V3_5: Version = parseVersion("3.5.0")!;
const V3_6: Version = parseVersion("3.6.0")!;
const minor = ({ major, minor: number }: Version): string => `${major}.${number}`;

/** The bucket `meta` in memory, to be changed before the file is rewritten. */
class EditedMeta implements MetaFields {
  readonly #fields = new Map<string, Buffer>();
  isChanged = false;

  constructor(reader: BoltReader) {
    for (const { key, value } of reader.bucket(Buffer.from("meta"))?.entries() ?? []) {
      this.#fields.set(Buffer.from(key).toString("latin1"), Buffer.from(value));
    }
  }

  /** Term of the last entry in the database; 0 when unknown. */
  get term(): number {
    const bytes = this.get("meta", metaKeys.term);
    return bytes === undefined ? 0 : Number(bytes.readBigUInt64BE(0));
  }

  get(_bucket: "meta", key: Uint8Array): Buffer | undefined {
    return this.#fields.get(Buffer.from(key).toString("latin1"));
  }

  put(_bucket: "meta", key: Uint8Array, value: Uint8Array): void {
    this.#fields.set(Buffer.from(key).toString("latin1"), Buffer.from(value));
    this.isChanged = true;
  }

  delete(_bucket: "meta", key: Uint8Array): void {
    if (this.#fields.delete(Buffer.from(key).toString("latin1"))) this.isChanged = true;
  }

  *entries(): Generator<{ readonly key: Uint8Array; readonly value: Uint8Array }, void, void> {
    for (const name of [...this.#fields.keys()].sort()) {
      yield { key: Buffer.from(name, "latin1"), value: this.#fields.get(name)! };
    }
  }
}
