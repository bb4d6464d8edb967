import { join } from "node:path";
import type { Clock } from "../../base/clock.ts";
import { messageOf } from "../../base/errors.ts";
import type { Logger } from "../../base/log.ts";
import { describeTls, TlsContext, type TlsOptions } from "../../rpc/tls/context.ts";
import { RevocationList } from "../../rpc/tls/revocation.ts";
import { selfSignedCertificate } from "../../rpc/tls/self-signed.ts";
import { isSecure, type ListenAddress } from "./listeners.ts";

/** TLS settings of listeners. */
export interface ListenerTls extends TlsOptions {
  /** Create a certificate when none is given. */
  readonly autoTls: boolean;
  readonly selfSignedCertValidityYears: number;
}

/** TLS settings of the client listeners. */
export type ClientTls = ListenerTls;

export interface TlsSurroundings {
  readonly dataDir: string;
  readonly clock: Clock;
  readonly logger: Logger;
}

export interface ClientTlsSurroundings extends TlsSurroundings {
  /** The client listeners, and those for metrics. */
  readonly clients: readonly ListenAddress[];
  readonly metrics: readonly ListenAddress[];
}

/**
 * The TLS context of the listeners; undefined without a certificate. Warns about listeners that ignore the certificate,
 * as in etcd. Throws when an address needs TLS and there is no certificate, or when a file is unusable.
 */
export async function openClientTls(
  tls: ClientTls | undefined,
  surroundings: ClientTlsSurroundings,
): Promise<TlsContext | undefined> {
  const { clients, metrics, logger } = surroundings;
  const options = tls === undefined ? undefined : await withCertificate(tls, "client", clients, surroundings);
  const isEmpty = options === undefined || (options.certFile === "" && options.keyFile === "");
  for (const address of clients) {
    if (isSecure(address)) {
      if (!isEmpty) continue;
      throw new Error(
        `TLS key/cert (--cert-file, --key-file) must be provided for client url ${address.url} with HTTPS scheme`,
      );
    }
    const warn = (what: string) => logger.warn(`scheme is http or unix while ${what}`, { "client-url": address.url });
    if (!isEmpty) warn("key and cert files are present; ignoring key and cert files");
    if (tls?.clientCertAuth) warn("--client-cert-auth is enabled; ignoring client cert auth for this URL");
  }
  if (isEmpty) {
    if (!metrics.some(isSecure)) return undefined;
    throw new Error("client TLS key/cert (--cert-file, --key-file) must be provided for metrics secure url");
  }
  const isNeeded = [...clients, ...metrics].some(isSecure);
  let context: TlsContext;
  try {
    context = new TlsContext(options, surroundings.clock, logger);
  } catch (error) {
    if (isNeeded) throw error;
    logger.warn("the certificate cannot be used; no client or metrics URL needs it", { error: error as Error });
    return undefined;
  }
  logger.info("starting with client TLS", { "tls-info": describeTls(options), "cipher-suites": options.cipherSuites });
  await tellOfBadList(options, logger);
  return context;
}

/** The options with a self-signed certificate, if configured and none is given. */
export async function withCertificate(
  tls: ListenerTls,
  kind: "client" | "peer",
  addresses: readonly ListenAddress[],
  { dataDir, clock, logger }: TlsSurroundings,
): Promise<TlsOptions> {
  if (!tls.autoTls) return tls;
  if (tls.certFile !== "" || tls.keyFile !== "") {
    logger.warn(`ignoring ${kind} auto TLS since certs given`);
    return tls;
  }
  const { certFile, keyFile } = await selfSignedCertificate({
    directory: join(dataDir, "fixtures", kind),
    hosts: addresses.map((address) => (address.kind === "tcp" ? (address.name ?? address.host) : "")),
    validityYears: tls.selfSignedCertValidityYears,
    clock,
    logger,
  });
  return {
    ...tls,
    // A self-signed certificate has no CA either: etcd ignores the option.
    trustedCaFile: "",
    clientCertAuth: false,
    crlFile: "",
    allowedCns: [],
    allowedHostnames: [],
    certFile,
    keyFile,
    clientCertFile: certFile,
    clientKeyFile: keyFile,
  };
}

/** Warns about an unusable revocation list. etcd detects it at the first connection, which is refused in both. */
export async function tellOfBadList({ crlFile, flagPrefix }: TlsOptions, logger: Logger): Promise<void> {
  if (crlFile === "") return;
  const [flag, who] = flagPrefix === "" ? ["--client-crl-file", "clients"] : ["--peer-crl-file", "peers"];
  try {
    await new RevocationList(crlFile, flag!).load();
  } catch (error) {
    logger.warn(`the list of revoked certificates cannot be used: ${who} that show a certificate are refused`, {
      error: messageOf(error),
    });
  }
}
