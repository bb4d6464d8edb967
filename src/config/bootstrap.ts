import { lookup } from "node:dns/promises";
import { isIP } from "node:net";
import type { Clock } from "../base/clock.ts";
import type { Logger } from "../base/log.ts";
import { quote } from "../base/quote.ts";
import type { Config } from "./config.ts";
import { ConfigError } from "./errors.ts";
import type { GoValueError } from "./go-value.ts";
import {
  formatUrlsByMember,
  isUnixSocket,
  parseUrlsByMember,
  splitHostPort,
  type Url,
  type UrlsByMember,
  urlTexts,
} from "./url.ts";

/**
 * The checks that etcd makes only of a member without data, before it founds or joins a cluster: the member is in
 * `--initial-cluster`, under the peer URLs that it advertises. Names are resolved where the texts differ.
 * Throws `ConfigError` of kind `start` with etcd's texts.
 */
export async function verifyBootstrap(config: Config, world: BootstrapWorld): Promise<void> {
  const members = readMembers(config);
  const own = members.get(config.name);
  if (own === undefined) fail(`couldn't find local name ${quote(config.name)} in the initial cluster configuration`);
  const isNew = config.initialClusterState === "new";
  if (isNew) await checkAdvertised(config, own!, world);
  if (hasDuplicateUrl(members)) fail(`initial cluster ${formatUrlsByMember(members)} has duplicate url`);
  if (!isNew && config.discovery.endpoints.length > 0) {
    fail("discovery URL should not be set when joining existing initial cluster");
  }
}

export interface BootstrapWorld {
  readonly clock: Clock;
  readonly log: Logger;
  /** The address of a host name; DNS when absent. */
  readonly resolve?: (host: string) => Promise<string>;
}

function fail(why: string): never {
  throw new ConfigError("start", why);
}

function readMembers(config: Config): UrlsByMember {
  if (config.discovery.endpoints.length > 0) return new Map([[config.name, config.advertisePeerUrls]]);
  try {
    return parseUrlsByMember(config.initialCluster);
  } catch (error) {
    return fail(`error setting up initial cluster: ${(error as GoValueError).message}`);
  }
}

function hasDuplicateUrl(members: UrlsByMember): boolean {
  const texts = [...members.values()].flatMap(urlTexts);
  return new Set(texts).size < texts.length;
}

async function checkAdvertised(config: Config, own: readonly Url[], world: BootstrapWorld): Promise<void> {
  const advertised = config.advertisePeerUrls;
  const difference = await differenceOf(advertised, own, world);
  if (difference === undefined) return;
  const advertisedTexts = urlTexts(advertised);
  const ownTexts = urlTexts(own);
  const list = advertisedTexts.join(",");
  const extra = ownTexts.filter((text) => !advertisedTexts.includes(text));
  if (extra.length > 0) {
    const pairs = extra.map((text) => `${config.name}=${text}`).join(",");
    fail(`--initial-cluster has ${pairs} but missing from --initial-advertise-peer-urls=${list} (${difference})`);
  }
  const ownCluster = formatUrlsByMember(new Map([[config.name, advertised]]));
  const missing = advertisedTexts.filter((text) => !ownTexts.includes(text));
  if (missing.length > 0) {
    fail(`--initial-advertise-peer-urls has ${missing.join(",")} but missing from --initial-cluster=${ownCluster}`);
  }
  fail(`failed to resolve ${list} to match --initial-cluster=${ownCluster} (${difference})`);
}

/** Undefined when both lists mean the same addresses, else why they do not. */
async function differenceOf(a: readonly Url[], b: readonly Url[], world: BootstrapWorld): Promise<string | undefined> {
  const quoteAll = (urls: readonly Url[]) => `[${urlTexts(urls).map(quote).join(" ")}]`;
  if (a.length !== b.length) return `len(${quoteAll(a)}) != len(${quoteAll(b)})`;
  if (a.every((url, i) => normalized(url) === normalized(b[i]!))) return undefined;
  let resolvedA: string[];
  let resolvedB: string[];
  try {
    resolvedA = (await Promise.all(a.map((url) => resolved(url, world)))).sort();
    resolvedB = (await Promise.all(b.map((url) => resolved(url, world)))).sort();
  } catch (error) {
    return (error as Error).message;
  }
  const at = resolvedA.findIndex((text, i) => text !== resolvedB[i]);
  return at < 0 ? undefined : `resolved urls: ${quote(resolvedA[at]!)} != ${quote(resolvedB[at]!)}`;
}

/** IPv6 addresses have many spellings. */
function normalized(url: Url): string {
  const host = isIP(url.hostname) === 6 ? new URL(`http://[${url.hostname}]/`).hostname : url.hostname;
  return isUnixSocket(url) ? url.text : `${url.scheme}://${host}:${url.port}`;
}

const RESOLVE_RETRY_MS = 1000;
const RESOLVE_GIVE_UP_MS = 30_000;

/** The URL with an address instead of a name, tried for half a minute: DNS may come up later than the member. */
async function resolved(url: Url, world: BootstrapWorld): Promise<string> {
  if (isUnixSocket(url) || url.hostname === "localhost" || isIP(url.hostname) !== 0) return normalized(url);
  const { port } = splitHostPort(url.host)!;
  const resolve = world.resolve ?? resolveByDns;
  const deadlineMs = world.clock.nowMs() + RESOLVE_GIVE_UP_MS;
  for (;;) {
    try {
      const address = await resolve(url.hostname);
      world.log.info("resolved URL Host", { url: url.text, host: url.host, "resolved-addr": `${address}:${port}` });
      return `${url.scheme}://${isIP(address) === 6 ? `[${address}]` : address}:${port}`;
    } catch (error) {
      world.log.warn("failed to resolve URL Host", { url: url.text, host: url.host, "retry-interval": "1s", error });
      if (world.clock.nowMs() + RESOLVE_RETRY_MS > deadlineMs) {
        throw new Error(`failed to resolve ${quote(url.text)} (${(error as Error).message})`);
      }
      await new Promise<void>((wake) => world.clock.after(RESOLVE_RETRY_MS, wake));
    }
  }
}

const resolveByDns = async (host: string): Promise<string> => (await lookup(host)).address;
