/** Members of a cluster by DNS, as clients find them. Source: etcd v3.7, client/pkg/srv. */
import { KvorumError } from "../base/errors.ts";

export interface SrvEndpoint {
  /** `https://host:port` */
  readonly url: string;
  readonly secure: boolean;
  readonly host: string;
  readonly port: number;
  readonly priority: number;
  readonly weight: number;
}

/** No record was found; the text names each lookup and its failure. */
export class SrvError extends KvorumError {
  override name = "SrvError";
  readonly code = "ERR_SRV";
}

/**
 * The SRV records `_etcd-client-ssl._tcp` and `_etcd-client._tcp` of a domain, those with TLS first. `suffix` is
 * appended to the services' names with a hyphen. Throws SrvError when there is none.
 */
export async function discoverSrv(domain: string, suffix: string): Promise<readonly SrvEndpoint[]> {
  const { resolveSrv } = await import("node:dns/promises");
  const end = suffix === "" ? "" : `-${suffix}`;
  const endpoints: SrvEndpoint[] = [];
  const failures: string[] = [];
  for (const secure of [true, false]) {
    const name = `_etcd-client${secure ? "-ssl" : ""}${end}._tcp.${domain}`;
    try {
      for (const { name: target, port, priority, weight } of await resolveSrv(name)) {
        const host = target.replace(/\.$/, "");
        endpoints.push({ url: `http${secure ? "s" : ""}://${host}:${port}`, secure, host, port, priority, weight });
      }
    } catch (error) {
      failures.push(`lookup ${name}: ${lookupText(error as NodeJS.ErrnoException)}`);
    }
  }
  if (endpoints.length === 0) throw new SrvError(`dns lookup errors: ${failures.join(" and ")}`);
  return endpoints;
}

const LOOKUP_TEXTS: Readonly<Record<string, string>> = {
  ENOTFOUND: "no such host",
  ENODATA: "no such host",
  ETIMEOUT: "the name server did not answer in time",
  ECONNREFUSED: "the name server refuses connections",
  ESERVFAIL: "server misbehaving",
  EBADNAME: "not a name that can be looked up",
};

const lookupText = ({ code, message }: NodeJS.ErrnoException) => LOOKUP_TEXTS[code ?? ""] ?? message;
