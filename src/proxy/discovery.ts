/** The members that SRV records of a domain name for clients. Source: etcd v3.7, client/pkg/srv, etcdmain/util.go. */
import { readFileSync } from "node:fs";
import { connect } from "node:tls";
import { systemText } from "../base/system-error.ts";
import { discoverSrv, type SrvEndpoint, SrvError } from "../client/srv.ts";
import { ProxyError, type ProxyIo } from "./contract.ts";
import type { Remote } from "./tcp/remotes.ts";

export interface DiscoveryOptions {
  /** Empty for no discovery. */
  readonly domain: string;
  readonly suffix: string;
  readonly caFile: string;
  /** Takes the records without verifying certificates. */
  readonly insecure: boolean;
}

const VERIFY_TIMEOUT_MS = 5000;

/** Empty without a domain. Throws ProxyError when there are no records. */
export async function discoverRemotes(io: ProxyIo, options: DiscoveryOptions): Promise<readonly Remote[]> {
  const { domain, suffix, caFile, insecure } = options;
  if (domain === "") return [];
  let found: readonly SrvEndpoint[];
  try {
    found = await discoverSrv(domain, suffix);
  } catch (error) {
    if (error instanceof SrvError) throw new ProxyError(error.message);
    throw error;
  }
  const fields = { "srv-server": domain, endpoints: found.map(({ url }) => url) };
  io.logger.info("discovered cluster from SRV", fields);
  const usable = insecure ? found : await verified(io, found, domain, readCa(caFile));
  return usable.map(({ host, port, priority, weight }) => ({
    host,
    port,
    address: `${host}:${port}`,
    priority,
    weight,
  }));
}

function readCa(file: string): Buffer | undefined {
  if (file === "") return undefined;
  try {
    return readFileSync(file);
  } catch (error) {
    throw new ProxyError(`cannot read --trusted-ca-file: ${systemText(error)}`);
  }
}

/** Those whose certificates name the domain. */
async function verified(
  io: ProxyIo,
  found: readonly SrvEndpoint[],
  domain: string,
  ca: Buffer | undefined,
): Promise<readonly SrvEndpoint[]> {
  const fields = { "srv-server": domain };
  io.logger.info("validating discovered SRV endpoints", { ...fields, endpoints: found.map(({ url }) => url) });
  const usable: SrvEndpoint[] = [];
  const problems: string[] = [];
  await Promise.all(
    found.map(async (endpoint) => {
      const problem = endpoint.secure ? await handshakeProblem(io, endpoint, domain, ca) : "is insecure";
      if (problem === undefined) usable.push(endpoint);
      else problems.push(`${endpoint.url}: ${problem}`);
    }),
  );
  const endpoints = usable.map(({ url }) => url);
  if (problems.length > 0) {
    const message = "failed to validate discovered endpoints";
    io.logger.warn(message, { ...fields, endpoints, error: problems.join(", ") });
  } else io.logger.info("using validated discovered SRV endpoints", { ...fields, endpoints });
  return usable;
}

function handshakeProblem(
  { clock }: ProxyIo,
  { host, port }: SrvEndpoint,
  domain: string,
  ca: Buffer | undefined,
): Promise<string | undefined> {
  return new Promise((resolve) => {
    const socket = connect({ host, port, servername: domain, ...(ca === undefined ? {} : { ca }) });
    const timer = clock.after(VERIFY_TIMEOUT_MS, () => socket.destroy(new Error("i/o timeout")));
    const end = (problem: string | undefined): void => {
      timer.cancel();
      socket.destroy();
      resolve(problem);
    };
    socket.once("secureConnect", () => end(undefined));
    socket.once("error", (error) => end(systemText(error)));
  });
}
