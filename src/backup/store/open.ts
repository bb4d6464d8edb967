/** A store by the text that a user gives for it, with what the environment says. */
import { isAbsolute, join, resolve } from "node:path";
import type { Clock } from "../../base/clock.ts";
import type { Disk } from "../../base/disk.ts";
import type { Random } from "../../base/random.ts";
import { BackupError } from "../error.ts";
import { DirectoryStore } from "./directory.ts";
import { S3Store } from "./s3.ts";
import type { Credentials } from "./sigv4.ts";
import type { Store } from "./store.ts";

export interface StoreWorld {
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly clock: Clock;
  readonly random: Random;
  readonly disk: Disk;
}

const DEFAULT_REGION = "us-east-1";

/** A directory, `file:///path`, or `s3://bucket/prefix?endpoint=URL&region=NAME`. Throws BackupError. */
export function openStore(text: string, world: StoreWorld): Store {
  if (text.startsWith("s3://")) return openS3(text, world);
  const path = text.startsWith("file://") ? text.slice("file://".length) : text;
  if (/^[a-z0-9]+:\/\//.test(path)) {
    throw wrong(text, "a store is a directory, or s3://bucket/prefix");
  }
  return new DirectoryStore(isAbsolute(path) ? path : resolve(path), world.clock, world.random);
}

function openS3(text: string, { env, clock, disk }: StoreWorld): Store {
  const [place = "", settings = "", ...more] = text.slice("s3://".length).split("?");
  const [bucket = "", ...prefix] = place.split("/");
  if (bucket === "" || more.length > 0) throw wrong(text, "write s3://bucket/prefix?endpoint=URL&region=NAME");
  const query = new URLSearchParams(settings);
  for (const name of query.keys()) {
    if (name !== "endpoint" && name !== "region") throw wrong(text, `it has "${name}"; there are endpoint and region`);
  }
  const region = query.get("region") ?? env["AWS_REGION"] ?? env["AWS_DEFAULT_REGION"] ?? DEFAULT_REGION;
  const url =
    query.get("endpoint") ??
    env["AWS_ENDPOINT_URL_S3"] ??
    env["AWS_ENDPOINT_URL"] ??
    `https://s3.${region}.amazonaws.com`;
  if (!/^https?:\/\/[^/]/.test(url) || !URL.canParse(url)) throw wrong(text, `its endpoint "${url}" is no http(s) URL`);
  const bundle = env["AWS_CA_BUNDLE"];
  const ca = bundle === undefined || bundle === "" ? undefined : disk.readFile(resolve(bundle));
  const credentials = (): Credentials => credentialsFrom(env, disk);
  const endpoint = new URL(url);
  return new S3Store({ url: text, endpoint, region, bucket, ca, credentials, clock }, prefix.join("/"));
}

/** From the variables, or the file that AWS's tools read. Throws BackupError. */
function credentialsFrom(env: StoreWorld["env"], disk: Disk): Credentials {
  const [id, secret] = [env["AWS_ACCESS_KEY_ID"], env["AWS_SECRET_ACCESS_KEY"]];
  if (id && secret)
    return { accessKeyId: id, secretAccessKey: secret, sessionToken: env["AWS_SESSION_TOKEN"] || undefined };
  const file = env["AWS_SHARED_CREDENTIALS_FILE"] ?? join(env["HOME"] ?? "/", ".aws", "credentials");
  const profile = env["AWS_PROFILE"] ?? "default";
  if (disk.exists(file)) {
    const found = profileOf(disk.readFile(file).toString("utf8"), profile);
    const [accessKeyId, secretAccessKey] = [found.get("aws_access_key_id"), found.get("aws_secret_access_key")];
    if (accessKeyId && secretAccessKey) {
      return { accessKeyId, secretAccessKey, sessionToken: found.get("aws_session_token") };
    }
  }
  const where = `set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or write profile ${profile} into ${file}`;
  throw new BackupError("ERR_BACKUP_KEY", `there are no credentials for the store: ${where}`);
}

function profileOf(text: string, profile: string): ReadonlyMap<string, string> {
  const values = new Map<string, string>();
  let isIn = false;
  for (const line of text.split("\n").map((each) => each.trim())) {
    const section = /^\[(.*)\]$/.exec(line)?.[1];
    if (section !== undefined) isIn = section.trim() === profile;
    const equals = line.indexOf("=");
    if (isIn && equals > 0 && !line.startsWith("#"))
      values.set(line.slice(0, equals).trim(), line.slice(equals + 1).trim());
  }
  return values;
}

const wrong = (store: string, why: string): BackupError =>
  new BackupError("ERR_BACKUP_USAGE", `--store ${store}: ${why}`);
