/** The flags that the commands share, and what they mean: stores, keys, the cluster. */
import { tmpdir } from "node:os";
import { isAbsolute, resolve } from "node:path";
import type { Flag, FlagSet } from "../base/flags.ts";
import { Client } from "../client/client.ts";
import { optionsFromEnvironment } from "../client/environment.ts";
import type { Io } from "../ctl/io.ts";
import { Progress } from "../utl/progress.ts";
import {
  type Identity,
  identitiesOf,
  passphraseKey,
  type Recipient,
  recipientsOf,
  x25519Recipient,
} from "./age/keys.ts";
import { BackupError } from "./error.ts";
import type { RebuildOptions } from "./rebuild.ts";
import { openStore } from "./store/open.ts";
import type { Store } from "./store/store.ts";

export const STORE_FLAGS: readonly Flag[] = [
  {
    name: "store",
    kind: "strings",
    value: [],
    usage: "where the backup is: a directory, or s3://bucket/prefix?endpoint=URL&region=NAME",
  },
];

export const READ_KEY_FLAGS: readonly Flag[] = [
  { name: "identity", kind: "string", value: "", usage: "file with the secret keys (age-keygen) that read the backup" },
  { name: "passphrase-file", kind: "string", value: "", usage: "file with the passphrase of the backup" },
];

export const WRITE_KEY_FLAGS: readonly Flag[] = [
  {
    name: "recipient",
    kind: "strings",
    value: [],
    usage: "age1… key that shall be able to read the backup; encrypts it",
  },
  { name: "recipients-file", kind: "string", value: "", usage: "file with such keys, one a line" },
  { name: "passphrase-file", kind: "string", value: "", usage: "file with a passphrase that encrypts the backup" },
];

export const SCRATCH_FLAGS: readonly Flag[] = [
  {
    name: "scratch-dir",
    kind: "string",
    value: "",
    usage: "directory with room for two databases, for what is worked on; the system's for temporary files if empty",
  },
];

/** As etcdctl has them, with the same variables. */
export const CLUSTER_FLAGS: readonly Flag[] = [
  { name: "endpoints", kind: "strings", value: ["127.0.0.1:2379"], usage: "gRPC endpoints of the cluster" },
  { name: "cacert", kind: "string", value: "", usage: "verify certificates of the servers with this CA bundle" },
  { name: "cert", kind: "string", value: "", usage: "identify with this TLS certificate" },
  { name: "key", kind: "string", value: "", usage: "identify with this TLS key" },
  {
    name: "user",
    kind: "string",
    value: "",
    usage: "username[:password]; rather set ETCDCTL_USER and ETCDCTL_PASSWORD",
  },
  { name: "insecure-skip-tls-verify", kind: "bool", value: false, usage: "accept any server certificate" },
];

const CLUSTER_VARIABLES = ["endpoints", "cacert", "cert", "key", "user"] as const;

/** Throws ClientOptionsError, EndpointError. */
export function clientOf(flags: FlagSet, io: Io): Client {
  const environment: Record<string, string | undefined> = { ...io.env };
  for (const name of CLUSTER_VARIABLES) {
    const value = name === "endpoints" ? flags.strings(name).join(",") : flags.string(name);
    if (flags.changed(name)) environment[`ETCDCTL_${name.toUpperCase()}`] = value;
  }
  if (flags.bool("insecure-skip-tls-verify")) environment["ETCDCTL_INSECURE_SKIP_TLS_VERIFY"] = "true";
  return new Client(optionsFromEnvironment(environment));
}

/** All stores that were given. Throws BackupError. */
export function storesOf(flags: FlagSet, io: Io): readonly Store[] {
  const urls = flags.strings("store");
  if (urls.length === 0) throw usage("give --store: a directory, or s3://bucket/prefix");
  return urls.map((url) => openStore(url, { env: io.env, clock: io.clock, random: io.random, disk: io.disk }));
}

/** The one store of a command that reads. Throws BackupError. */
export function storeOf(flags: FlagSet, io: Io): Store {
  const [store, ...more] = storesOf(flags, io);
  if (store === undefined || more.length > 0) throw usage("give one --store");
  return store;
}

/** Throws BackupError, node's errors. */
export function identitiesFrom(flags: FlagSet, io: Io): readonly Identity[] {
  const file = flags.string("identity");
  const passphrase = passphraseOf(flags, io);
  return [
    ...(file === "" ? [] : identitiesOf(textOf(file, io), file)),
    ...(passphrase === undefined ? [] : [passphraseKey(passphrase)]),
  ];
}

/** Empty when the backup is not encrypted. Throws BackupError, node's errors. */
export function recipientsFrom(flags: FlagSet, io: Io): readonly Recipient[] {
  const file = flags.string("recipients-file");
  const passphrase = passphraseOf(flags, io);
  const keys = [
    ...flags.strings("recipient").map(x25519Recipient),
    ...(file === "" ? [] : recipientsOf(textOf(file, io))),
  ];
  if (file !== "" && keys.length === 0) throw usage(`${file} has no line with age1…`);
  if (passphrase === undefined) return keys;
  if (keys.length > 0) throw usage("give recipients, or a passphrase, not both: age knows no file for both");
  return [passphraseKey(passphrase)];
}

export function scratchDirOf(flags: FlagSet): string {
  const dir = flags.string("scratch-dir");
  return dir === "" ? tmpdir() : absolute(dir);
}

export const progressOf =
  (io: Io): RebuildOptions["progress"] =>
  (what, totalBytes) =>
    new Progress({ ...io, args: [] }, what, Math.max(1, totalBytes));

export const absolute = (path: string): string => (isAbsolute(path) ? path : resolve(path));

export const usage = (message: string): BackupError => new BackupError("ERR_BACKUP_USAGE", message);

function passphraseOf(flags: FlagSet, io: Io): string | undefined {
  const file = flags.string("passphrase-file");
  return file === "" ? undefined : textOf(file, io).split("\n")[0]!.replace(/\r$/, "");
}

const textOf = (file: string, io: Io): string => io.disk.readFile(absolute(file)).toString("utf8");
