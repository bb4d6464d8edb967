/**
 * The TLS client side of a member: its certificate and trusted CAs, read from files and reread when they change, and
 * the checks of the server's certificate.
 *
 * Source: etcd's client/pkg/transport (`TLSInfo.ClientConfig`) and Go's crypto/tls.
 */
import { X509Certificate } from "node:crypto";
import { isIP } from "node:net";
import type { ConnectionOptions, SecureContextOptions } from "node:tls";
import type { Logger } from "../../base/log.ts";
import { isAllowed, namesOf } from "./certificate-names.ts";
import { NODE_VERSIONS, openSslCiphers, readAuthorities, readPair, type TlsOptions } from "./context.ts";
import { fileStamp, TlsError } from "./files.ts";

export interface TlsClientOptions extends TlsOptions {
  /** Expected name in the server's certificate; empty for the dialled name. */
  readonly serverName: string;
  /** Accept any certificate, for members with self-signed ones. */
  readonly insecureSkipVerify: boolean;
}

export class TlsClient {
  readonly #options: TlsClientOptions;
  readonly #logger: Logger;
  #stamps: string;
  #secure: SecureContextOptions;

  /**
   * Reads the files. Throws `TlsError`. Without a certificate none is presented; without CAs the system's are trusted.
   */
  constructor(options: TlsClientOptions, logger: Logger) {
    this.#options = options;
    this.#logger = logger;
    this.#stamps = this.#readStamps();
    this.#secure = this.#read();
  }

  /** Options for connecting to `host`, a name or an IP address without brackets. */
  connectOptions(host: string): ConnectionOptions {
    const { insecureSkipVerify, serverName } = this.#options;
    const name = serverName === "" ? host : serverName;
    return {
      ...this.#current(),
      // SNI must not be an address.
      servername: isIP(name) === 0 ? name : "",
      rejectUnauthorized: !insecureSkipVerify,
      // Every CA in the file is trusted, an intermediate too, as in Go.
      allowPartialTrustChain: true,
      checkServerIdentity: (_host, { raw }) => this.#problem(new X509Certificate(raw), name),
    } as ConnectionOptions;
  }

  #problem(certificate: X509Certificate, name: string): Error | undefined {
    if (!isAllowed(certificate, [], [name]))
      return new TlsError(`tls: failed to verify certificate: ${notFor(certificate, name)}`);
    const { allowedCns, allowedHostnames } = this.#options;
    if (isAllowed(certificate, allowedCns, allowedHostnames)) return undefined;
    return new TlsError("client certificate authentication failed");
  }

  #current(): SecureContextOptions {
    const stamps = this.#readStamps();
    if (stamps === this.#stamps) return this.#secure;
    this.#stamps = stamps;
    const [certFile, keyFile] = this.#pair;
    const fields = { "cert-file": certFile, "key-file": keyFile };
    try {
      this.#secure = this.#read();
      this.#logger.info("reloaded certificate files", fields);
    } catch (error) {
      const { message } = error as Error;
      const isMissing = message.includes("no such file");
      this.#logger.warn(isMissing ? "failed to find client cert files" : "failed to create client certificate", {
        ...fields,
        error: `${message}; the certificate read before stays in use`,
      });
    }
    return this.#secure;
  }

  get #pair(): readonly [certFile: string, keyFile: string] {
    const { certFile, keyFile, clientCertFile, clientKeyFile } = this.#options;
    return clientCertFile === "" ? [certFile, keyFile] : [clientCertFile, clientKeyFile];
  }

  #readStamps(): string {
    return [...this.#pair, this.#options.trustedCaFile].map((file) => (file === "" ? "" : fileStamp(file))).join(" ");
  }

  #read(): SecureContextOptions {
    const { clientCertFile, trustedCaFile, flagPrefix, minVersion, maxVersion, cipherSuites } = this.#options;
    const [certFile, keyFile] = this.#pair;
    const flag = (what: string) => `--${flagPrefix}${clientCertFile === "" ? "" : "client-"}${what}-file`;
    const pair = certFile === "" ? undefined : readPair(certFile, keyFile, flag("cert"), flag("key"));
    return {
      ...(pair === undefined ? {} : { cert: pair.cert, key: pair.key }),
      ...(trustedCaFile === "" ? {} : { ca: readAuthorities(trustedCaFile, flagPrefix) }),
      minVersion: NODE_VERSIONS[minVersion] ?? "TLSv1.2",
      maxVersion: NODE_VERSIONS[maxVersion] ?? "TLSv1.3",
      ...(cipherSuites.length === 0 ? {} : { ciphers: openSslCiphers(cipherSuites) }),
    };
  }
}

/** In Go's words. */
function notFor(certificate: X509Certificate, name: string): string {
  const { dnsNames, ipAddresses } = namesOf(certificate);
  if (isIP(name) !== 0) {
    if (ipAddresses.length === 0) {
      return `x509: cannot validate certificate for ${name} because it doesn't contain any IP SANs`;
    }
    return `x509: certificate is valid for ${ipAddresses.join(", ")}, not ${name}`;
  }
  if (dnsNames.length === 0) return `x509: certificate is not valid for any names, but wanted to match ${name}`;
  return `x509: certificate is valid for ${dnsNames.join(", ")}, not ${name}`;
}
