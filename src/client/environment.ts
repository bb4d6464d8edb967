/** A client's settings from outside of the program: the variables of `etcdctl`, and DNS. */

import { messageOf } from "../base/errors.ts";
import { parseDuration } from "../base/number-text.ts";
import { type ClientOptions, ClientOptionsError } from "./options.ts";
import { discoverSrv } from "./srv.ts";

/**
 * The settings that `etcdctl` would take from these variables: `ETCDCTL_ENDPOINTS`, `ETCDCTL_USER` (`name:password`) with
 * `ETCDCTL_PASSWORD`, `ETCDCTL_CACERT`, `ETCDCTL_CERT`, `ETCDCTL_KEY`, `ETCDCTL_INSECURE_SKIP_TLS_VERIFY`,
 * `ETCDCTL_DIAL_TIMEOUT` and `ETCDCTL_COMMAND_TIMEOUT`. Throws ClientOptionsError.
 *
 * @example
 * const client = new Client(optionsFromEnvironment(process.env));
 */
export function optionsFromEnvironment(environment: Readonly<Record<string, string | undefined>>): ClientOptions {
  const read = (name: string) => environment[`ETCDCTL_${name}`] || undefined;
  const [endpoints, caFile, certFile, keyFile] = [read("ENDPOINTS"), read("CACERT"), read("CERT"), read("KEY")];
  const [username, password] = credentials(read("USER"), read("PASSWORD"));
  const insecureSkipVerify = read("INSECURE_SKIP_TLS_VERIFY") === "true";
  const [connectTimeoutMs, timeoutMs] = [duration("DIAL_TIMEOUT", read), duration("COMMAND_TIMEOUT", read)];
  const tls = {
    ...(caFile === undefined ? {} : { caFile }),
    ...(certFile === undefined ? {} : { certFile }),
    ...(keyFile === undefined ? {} : { keyFile }),
    ...(insecureSkipVerify ? { insecureSkipVerify } : {}),
  };
  return {
    ...(endpoints === undefined ? {} : { endpoints: endpoints.split(",") }),
    ...(Object.keys(tls).length === 0 ? {} : { tls }),
    ...(username === undefined || password === undefined ? {} : { username, password }),
    ...(connectTimeoutMs === undefined ? {} : { connectTimeoutMs }),
    ...(timeoutMs === undefined ? {} : { timeoutMs }),
  };
}

/**
 * The members that a domain's SRV records name (`_etcd-client-ssl._tcp` and `_etcd-client._tcp`), best first. Rejects with
 * SrvError when there are none.
 *
 * @example
 * const client = new Client({ endpoints: await endpointsFromDns("example.com") });
 */
export async function endpointsFromDns(domain: string): Promise<readonly string[]> {
  const found = await discoverSrv(domain, "");
  return found.toSorted((a, b) => a.priority - b.priority || b.weight - a.weight).map(({ url }) => url);
}

function credentials(user: string | undefined, password: string | undefined) {
  if (user === undefined) return [undefined, undefined] as const;
  const colon = user.indexOf(":");
  if (password !== undefined) return [user, password] as const;
  if (colon < 0)
    throw new ClientOptionsError("ETCDCTL_USER has no password: write name:password, or set ETCDCTL_PASSWORD");
  return [user.slice(0, colon), user.slice(colon + 1)] as const;
}

function duration(name: string, read: (name: string) => string | undefined): number | undefined {
  const text = read(name);
  if (text === undefined) return undefined;
  try {
    const ms = parseDuration(text);
    if (ms > 0) return ms;
  } catch (cause) {
    throw new ClientOptionsError(`ETCDCTL_${name}: ${messageOf(cause)}`, { cause });
  }
  throw new ClientOptionsError(`ETCDCTL_${name}=${text} is no time above 0`);
}
