import { promises as dns, type SrvRecord } from "node:dns";
import { isIP } from "node:net";
import type { Logger } from "../../base/log.ts";
import { quote } from "../../base/quote.ts";
import type { Config } from "../config.ts";
import { ConfigError } from "../errors.ts";
import type { GoValueError } from "../values/go-value.ts";
import { parseUrlsByMember, urlTexts } from "../values/url.ts";

/** The lookups for discovery by DNS. */
export interface SrvResolver {
  srv(name: string): Promise<readonly SrvRecord[]>;
  /** The address of a host name. */
  address(host: string): Promise<string>;
}

export const systemSrvResolver: SrvResolver = {
  srv: (name) => dns.resolveSrv(name),
  address: async (host) => (await dns.lookup(host)).address,
};

/** The cluster according to the SRV records. */
export interface SrvCluster {
  /** In the format of `--initial-cluster`. */
  readonly initialCluster: string;
  /** Expected name in members' certificates instead of their host; empty for the host. */
  readonly peerServerName: string;
}

/**
 * The members of a new cluster from the SRV records of `--discovery-srv`: `_etcd-server-ssl._tcp` for https and
 * `_etcd-server._tcp` for http, both if both exist. The record that resolves to an address advertised by this member is
 * this member, under its name; the others are numbered. Without a CA to verify them (`--peer-trusted-ca-file`),
 * members' certificates must name the domain, so that forging a record gains nothing. Throws `ConfigError` of kind
 * `start` with etcd's texts. Sources: etcd `client/pkg/srv`, `server/embed/config.go`.
 */
export async function findClusterBySrv(config: Config, resolver: SrvResolver, log: Logger): Promise<SrvCluster> {
  const pairs: string[] = [];
  const problems: string[] = [];
  for (const { scheme, service } of SERVICES) {
    const name = config.discovery.srvName === "" ? service : `${service}-${config.discovery.srvName}`;
    let found: string[] = [];
    let problem: string | undefined;
    try {
      found = await findMembers(config, scheme, name, resolver);
    } catch (error) {
      problem = `error querying DNS SRV records for _${name} ${(error as Error).message}`;
      problems.push(problem);
    }
    log.info(`get cluster for ${service} SRV`, {
      "service-scheme": scheme,
      "service-name": name,
      "server-name": config.name,
      "discovery-srv": config.discovery.srv,
      "advertise-peer-urls": urlTexts(config.advertisePeerUrls),
      "found-cluster": found,
      ...(problem === undefined ? {} : { error: problem }),
    });
    pairs.push(...found);
  }
  if (problems.length > 0) log.warn("failed to resolve during SRV discovery", { error: problems.join("\n") });
  if (pairs.length === 0) fail(`error setting up initial cluster: ${problems.join("\n")}`);
  for (const node of pairs) log.info("got bootstrap from DNS for etcd-server", { node });
  const initialCluster = pairs.join(",");
  if (!membersOf(initialCluster).has(config.name)) {
    fail(`error setting up initial cluster: cannot find local etcd member ${quote(config.name)} in SRV records`);
  }
  const isUnchecked = initialCluster.includes("https://") && config.peerTls.trustedCaFile === "";
  return { initialCluster, peerServerName: isUnchecked ? config.discovery.srv : "" };
}

const SERVICES = [
  { scheme: "https", service: "etcd-server-ssl" },
  { scheme: "http", service: "etcd-server" },
] as const;

/** `name=url` for each record of a service. */
async function findMembers(
  config: Config,
  scheme: "http" | "https",
  service: string,
  resolver: SrvResolver,
): Promise<string[]> {
  const own = new Map<string, string>();
  for (const url of config.advertisePeerUrls) own.set(await addressOf(url.hostname, url.port, resolver), url.text);
  const records = await lookUp(`_${service}._tcp.${config.discovery.srv}`, resolver);
  const pairs: string[] = [];
  let problem: unknown;
  let unnamed = 0;
  for (const { name: target, port } of records) {
    let ownUrl: string | undefined;
    try {
      ownUrl = own.get(await addressOf(target, `${port}`, resolver));
    } catch (error) {
      problem = error;
      continue;
    }
    const host = target.replace(/\.$/, "");
    const url = `${scheme}://${isIP(host) === 6 ? `[${host}]` : host}:${port}`;
    const name = ownUrl === undefined ? `${unnamed++}` : config.name;
    if (ownUrl === undefined || ownUrl.startsWith(`${scheme}:`)) pairs.push(`${name}=${url}`);
    else {
      problem = new Error(
        `bootstrap at ${url} from DNS for ${service} has scheme mismatch with expected peer ${ownUrl}`,
      );
    }
  }
  if (pairs.length === 0 && problem !== undefined) throw problem;
  return pairs;
}

/** By priority. Weights distribute clients over servers, but all members are needed. */
async function lookUp(name: string, resolver: SrvResolver): Promise<readonly SrvRecord[]> {
  try {
    return [...(await resolver.srv(name))].sort((a, b) => a.priority - b.priority);
  } catch (error) {
    throw new Error(`lookup ${name}: ${reasonOf(error)}`);
  }
}

async function addressOf(host: string, port: string, resolver: SrvResolver): Promise<string> {
  if (isIP(host) !== 0) return `${host} ${port}`;
  try {
    return `${await resolver.address(host)} ${port}`;
  } catch (error) {
    throw new Error(`lookup ${host}: ${reasonOf(error)}`);
  }
}

function reasonOf(error: unknown): string {
  const { code, message } = error as NodeJS.ErrnoException;
  switch (code) {
    case "ENOTFOUND":
    case "ENODATA":
      return "no such host";
    case "ETIMEOUT":
      return "i/o timeout";
    case "ESERVFAIL":
    case "EAI_AGAIN":
      return "server misbehaving";
    default:
      return message;
  }
}

function membersOf(initialCluster: string): ReadonlyMap<string, unknown> {
  try {
    return parseUrlsByMember(initialCluster);
  } catch (error) {
    return fail(`error setting up initial cluster: ${(error as GoValueError).message}`);
  }
}

function fail(why: string): never {
  throw new ConfigError("start", why);
}
