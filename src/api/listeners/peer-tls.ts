import { TlsClient } from "../../rpc/tls/client.ts";
import { describeTls, NO_TLS, TlsContext, type TlsOptions } from "../../rpc/tls/context.ts";
import { TlsError } from "../../rpc/tls/files.ts";
import { type ListenerTls, type TlsSurroundings, tellOfBadList, withCertificate } from "./client-tls.ts";
import { isSecure, type ListenAddress } from "./listeners.ts";

/** TLS between members, from the `--peer-…` flags. */
export interface PeerTls extends ListenerTls {
  readonly flagPrefix: "peer-";
  /** Expected name in peers' certificates; empty for the dialled name. */
  readonly serverName: string;
}

/** Both ends of TLS between members. */
export interface OpenPeerTls {
  /** For the listeners; undefined without a certificate. */
  readonly server: TlsContext | undefined;
  /** For connections to other members. */
  readonly client: TlsClient;
}

const NO_PEER_TLS: PeerTls = {
  ...NO_TLS,
  flagPrefix: "peer-",
  autoTls: false,
  selfSignedCertValidityYears: 1,
  serverName: "",
};

/**
 * Loads the TLS contexts for connections between members. Warns about listeners that ignore the certificate, as in
 * etcd. Throws when an address needs TLS and there is no certificate, or when a file is unusable.
 */
export async function openPeerTls(
  given: PeerTls | undefined,
  addresses: readonly ListenAddress[],
  surroundings: TlsSurroundings,
): Promise<OpenPeerTls> {
  const tls = given ?? NO_PEER_TLS;
  const { clock, logger } = surroundings;
  const options = await withCertificate(tls, "peer", addresses, surroundings);
  const isEmpty = options.certFile === "" && options.keyFile === "";
  if (!isEmpty) {
    logger.info("starting with peer TLS", { "tls-info": describeTls(options), "cipher-suites": options.cipherSuites });
  }
  for (const address of addresses) checkAddress(address, options, isEmpty, surroundings);
  const server = isEmpty ? undefined : new TlsContext(options, clock, logger);
  if (server !== undefined) await tellOfBadList(options, logger);
  // Members with self-signed certificates trust each other's.
  const insecureSkipVerify = options !== tls;
  return { server, client: new TlsClient({ ...options, serverName: tls.serverName, insecureSkipVerify }, logger) };
}

function checkAddress(address: ListenAddress, tls: TlsOptions, isEmpty: boolean, { logger }: TlsSurroundings): void {
  if (isSecure(address)) {
    if (!isEmpty) return;
    throw new TlsError(
      `cannot listen on TLS for ${address.url}: KeyFile and CertFile are not presented: give --peer-cert-file and --peer-key-file, or --peer-auto-tls`,
    );
  }
  if (address.kind !== "tcp") return;
  const warn = (what: string): void => logger.warn(`scheme is HTTP while ${what}`, { "peer-url": address.url });
  if (!isEmpty) warn("key and cert files are present; ignoring key and cert files");
  if (tls.clientCertAuth) warn("--peer-client-cert-auth is enabled; ignoring client cert auth for this URL");
}
