import { quote } from "../../base/quote.ts";
import type { Config } from "../config.ts";
import { ConfigError } from "../errors.ts";
import { type ResolveWorld, urlDifference } from "../machine/url-equality.ts";
import type { GoValueError } from "../values/go-value.ts";
import { formatUrlsByMember, parseUrlsByMember, type Url, type UrlsByMember, urlTexts } from "../values/url.ts";

/** The settings that these checks read. */
export type BootstrapSettings = Pick<
  Config,
  "name" | "initialCluster" | "initialClusterState" | "advertisePeerUrls"
> & { readonly discovery: Pick<Config["discovery"], "endpoints"> };

/**
 * etcd's checks of a member without data, before it forms or joins a cluster: the member is in `--initial-cluster`,
 * with the peer URLs that it advertises. Names are resolved where the texts differ. Throws `ConfigError` of kind
 * `start` with etcd's texts.
 */
export async function verifyBootstrap(config: BootstrapSettings, world: ResolveWorld): Promise<void> {
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

function fail(why: string): never {
  throw new ConfigError("start", why);
}

function readMembers(config: BootstrapSettings): UrlsByMember {
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

async function checkAdvertised(config: BootstrapSettings, own: readonly Url[], world: ResolveWorld): Promise<void> {
  const advertised = config.advertisePeerUrls;
  const difference = await urlDifference(advertised, own, world);
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
