import { join } from "node:path";
import type { Clock } from "../base/clock.ts";
import type { Logger } from "../base/log.ts";
import { describeTls, TlsContext, type TlsOptions } from "../rpc/tls/context.ts";
import { RevocationList } from "../rpc/tls/revocation.ts";
import { selfSignedCertificate } from "../rpc/tls/self-signed.ts";
import { isSecure, type ListenAddress } from "./listeners.ts";

/** TLS as the client listeners are told of it. */
export interface ClientTls extends TlsOptions {
  /** Make a certificate when none is given. */
  readonly autoTls: boolean;
  readonly selfSignedCertValidityYears: number;
}

export interface ClientTlsSurroundings {
  readonly dataDir: string;
  /** The listeners for clients, and those for metrics. */
  readonly clients: readonly ListenAddress[];
  readonly metrics: readonly ListenAddress[];
  readonly clock: Clock;
  readonly logger: Logger;
}

/**
 * What the listeners need for TLS; undefined without a certificate. Warns of listeners that ignore the certificate, as
 * etcd does. Throws when an address wants TLS and there is no certificate, or when a file cannot be used.
 */
export async function openClientTls(
  tls: ClientTls | undefined,
  surroundings: ClientTlsSurroundings,
): Promise<TlsContext | undefined> {
  const { clients, metrics, logger } = surroundings;
  const options = tls === undefined ? undefined : await withCertificate(tls, surroundings);
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
  const context = new TlsContext(options, surroundings.clock, logger);
  logger.info("starting with client TLS", { "tls-info": describeTls(options), "cipher-suites": options.cipherSuites });
  if (options.crlFile !== "") await tellOfBadList(options.crlFile, logger);
  return context;
}

async function withCertificate(tls: ClientTls, surroundings: ClientTlsSurroundings): Promise<TlsOptions> {
  const { clients, dataDir, clock, logger } = surroundings;
  if (!tls.autoTls) return tls;
  if (tls.certFile !== "" || tls.keyFile !== "") {
    logger.warn("ignoring client auto TLS since certs given");
    return tls;
  }
  const { certFile, keyFile } = await selfSignedCertificate({
    directory: join(dataDir, "fixtures", "client"),
    hosts: clients.map((address) => (address.kind === "tcp" ? (address.name ?? address.host) : "")),
    validityYears: tls.selfSignedCertValidityYears,
    clock,
    logger,
  });
  return {
    ...tls,
    // Whoever makes the certificate for himself has no authorities either: etcd drops what was said of them.
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

/** etcd finds out at the first client; that one is refused either way. */
async function tellOfBadList(crlFile: string, logger: Logger): Promise<void> {
  try {
    await new RevocationList(crlFile, "--client-crl-file").load();
  } catch (error) {
    logger.warn("the list of revoked certificates cannot be used: clients that show a certificate are refused", {
      error: (error as Error).message,
    });
  }
}
