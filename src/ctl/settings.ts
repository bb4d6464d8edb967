/**
 * Converts flags to connection settings: endpoints, TLS files, credentials. Source: etcd v3.7,
 * etcdctl/ctlv3/command/global.go and client/v3/config.go.
 */
import type { FlagSet } from "../base/flags.ts";
import type { TlsOptions } from "../client/raw.ts";
import { discoverSrv, SrvError } from "../client/srv.ts";
import type { ClusterOptions } from "./connection.ts";
import { EXIT, ExitError } from "./exit.ts";
import { type Io, log } from "./io.ts";
import { readTlsFiles } from "./tls-files.ts";

const REQUEST_BYTES_MAX = 2 * 1024 * 1024;

/** Throws ExitError. */
export async function clusterOptions(flags: FlagSet, io: Io): Promise<ClusterOptions> {
  return {
    endpoints: await endpointsOf(flags, io),
    ...limits(flags, io),
    tls: tlsOf(flags, io),
    auth: await authOf(flags, io),
  };
}

/** The settings that are independent of the cluster. Throws ExitError. */
export function limits(flags: FlagSet, io: Io) {
  const [send, receive] = [flags.number("max-request-bytes"), flags.number("max-recv-bytes")];
  if (receive > 0 && send > receive) {
    const problem = `gRPC message recv limit (${receive} bytes) must be greater than send limit (${send} bytes)`;
    throw new ExitError(EXIT.badConnection, problem);
  }
  return {
    keepAliveMs: flags.number("keepalive-time"),
    keepAliveTimeoutMs: flags.number("keepalive-timeout"),
    dialTimeoutMs: flags.number("dial-timeout"),
    requestBytesMax: send > 0 ? send : REQUEST_BYTES_MAX,
    ...(receive > 0 ? { responseBytesMax: receive } : {}),
    clock: io.clock,
    warn: (message: string, error: string) => log(io, "warn", message, { error }),
  };
}

async function endpointsOf(flags: FlagSet, io: Io): Promise<string[]> {
  const domain = flags.string("discovery-srv");
  if (domain !== "") {
    const found = await discover(domain, flags.string("discovery-srv-name"));
    const usable = flags.bool("insecure-discovery") ? found : found.filter((endpoint) => isSecure(endpoint, io));
    if (usable.length > 0) return usable;
  }
  const endpoints = flags.strings("endpoints").map((endpoint) => endpoint.trim());
  if (endpoints.length === 0) {
    throw new ExitError(EXIT.badConnection, "etcdclient: no available endpoints (name them with --endpoints)");
  }
  return endpoints;
}

function isSecure(endpoint: string, io: Io): boolean {
  if (!endpoint.startsWith("http://")) return true;
  io.err(`ignoring discovered insecure endpoint "${endpoint}"\n`);
  return false;
}

/** Throws ExitError. */
async function discover(domain: string, suffix: string): Promise<string[]> {
  try {
    return (await discoverSrv(domain, suffix)).map(({ url }) => url);
  } catch (error) {
    if (error instanceof SrvError) throw new ExitError(EXIT.error, error.message);
    throw error;
  }
}

function tlsOf(flags: FlagSet, io: Io): TlsOptions | undefined {
  const files: Record<string, string> = {};
  for (const name of ["cert", "key", "cacert"]) {
    files[name] = flags.string(name);
    if (files[name] === "" && flags.changed(name)) {
      throw new ExitError(EXIT.badArgs, `empty string is passed to --${name} option`);
    }
  }
  const serverName = flags.bool("insecure-discovery") ? "" : flags.string("discovery-srv");
  const tls = tlsFrom(io, files["cert"]!, files["key"]!, files["cacert"]!, flags.bool("insecure-transport"));
  const skip = flags.bool("insecure-skip-tls-verify");
  if (tls === undefined && !skip && serverName === "") return undefined;
  return { ...tls, ...(serverName === "" ? {} : { serverName }), ...(skip ? { insecureSkipVerify: true } : {}) };
}

/** TLS with certificates from files; undefined when no flag asks for TLS. Throws ExitError. */
export function tlsFrom(io: Io, cert: string, key: string, cacert: string, insecure: boolean): TlsOptions | undefined {
  if ((cert === "") !== (key === "")) {
    throw new ExitError(EXIT.badArgs, `KeyFile and CertFile must both be present[key: ${key}, cert: ${cert}]`);
  }
  if (cert === "" && cacert === "") return insecure ? undefined : {};
  return readTlsFiles(io, { cert, key, cacert });
}

async function authOf(flags: FlagSet, io: Io): Promise<ClusterOptions["auth"]> {
  const token = flags.string("auth-jwt-token");
  if (token !== "") return { token };
  return credentials(io, flags.string("user"), flags.string("password"), "Password: ");
}

/** `user`, `user:password`, or both separately; prompts for a missing password. */
export async function credentials(
  io: Io,
  user: string,
  password: string,
  prompt: string,
): Promise<{ readonly user: string; readonly password: string } | undefined> {
  if (user === "") return undefined;
  if (password !== "") return { user, password };
  const colon = user.indexOf(":");
  if (colon >= 0) return { user: user.slice(0, colon), password: user.slice(colon + 1) };
  return { user, password: await io.askPassword(prompt) };
}
