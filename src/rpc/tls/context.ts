/**
 * The certificate, key and CAs of a server's TLS side, read from files, and the rules for its handshakes.
 *
 * Everything is read and checked at creation, so that a member with an invalid file does not start. After that
 * `current` checks the files' stamps and reloads what has changed: certificates are replaced without a restart. An
 * inconsistent change (a new certificate, still the old key) is logged once, and the former pair stays in use.
 *
 * Source: etcd's client/pkg/transport (`TLSInfo`).
 */
import { createPrivateKey, createPublicKey, X509Certificate } from "node:crypto";
import type { SecureVersion, TlsOptions as ServerOptions } from "node:tls";
import type { Clock } from "../../base/clock.ts";
import type { Logger } from "../../base/log.ts";
import { quote } from "../../base/quote.ts";
import { CIPHER_SUITES } from "../../config/values/cipher-suites.ts";
import { fileStamp, readTlsFile, TlsError } from "./files.ts";

/** `TLS1.2` or `TLS1.3`; empty for the default. */
export type TlsVersion = string;

export interface TlsOptions {
  readonly certFile: string;
  readonly keyFile: string;
  /** Presented to other servers instead of `certFile`; both or neither. */
  readonly clientCertFile: string;
  readonly clientKeyFile: string;
  /** If set, clients must present a certificate signed by these CAs. */
  readonly trustedCaFile: string;
  readonly clientCertAuth: boolean;
  /** Revoked serial numbers, whatever the issuer. */
  readonly crlFile: string;
  /** The certificate's common name must be one of these; empty for any. */
  readonly allowedCns: readonly string[];
  /** The certificate's names must include one of these; empty for any. Not together with `allowedCns`. */
  readonly allowedHostnames: readonly string[];
  /** Do not compare the certificate's names with the client's address. */
  readonly skipClientSanVerify: boolean;
  /** Go's names, for TLS 1.2; empty for all safe ones. */
  readonly cipherSuites: readonly string[];
  readonly minVersion: TlsVersion;
  readonly maxVersion: TlsVersion;
  /** Prefix of flag names in messages: "" or "peer-". */
  readonly flagPrefix: "" | "peer-";
}

/** No files, and everything else at its default. */
export const NO_TLS: TlsOptions = {
  certFile: "",
  keyFile: "",
  clientCertFile: "",
  clientKeyFile: "",
  trustedCaFile: "",
  clientCertAuth: false,
  crlFile: "",
  allowedCns: [],
  allowedHostnames: [],
  skipClientSanVerify: false,
  cipherSuites: [],
  minVersion: "",
  maxVersion: "",
  flagPrefix: "",
};

export class TlsContext {
  readonly options: TlsOptions;
  /** Clients must present a certificate. */
  readonly requiresCertificate: boolean;
  readonly #clock: Clock;
  readonly #logger: Logger;
  #server: ServerOptions;
  #stamps: string;

  /** Reads the files. Throws `TlsError`. */
  constructor(options: TlsOptions, clock: Clock, logger: Logger) {
    this.options = options;
    this.requiresCertificate = options.trustedCaFile !== "" || options.clientCertAuth;
    this.#clock = clock;
    this.#logger = logger;
    checkOptions(options);
    this.#stamps = this.#readStamps();
    this.#server = this.#read();
    if (options.trustedCaFile !== "")
      logger.info("Loading cert pool", { cs: [options.trustedCaFile], tlsinfo: describeTls(options) });
  }

  /** Options for handshakes now. The same object until a file has changed. */
  get current(): ServerOptions {
    const stamps = this.#readStamps();
    if (stamps === this.#stamps) return this.#server;
    this.#stamps = stamps;
    const { certFile, keyFile } = this.options;
    try {
      this.#server = this.#read();
      this.#logger.info("reloaded certificate files", { "cert-file": certFile, "key-file": keyFile });
    } catch (error) {
      const isMissing = (error as Error).message.includes("no such file");
      this.#logger.warn(isMissing ? "failed to find peer cert files" : "failed to create peer certificate", {
        "cert-file": certFile,
        "key-file": keyFile,
        error: `${(error as Error).message}; the certificate read before stays in use`,
      });
    }
    return this.#server;
  }

  #readStamps(): string {
    const { certFile, keyFile, trustedCaFile } = this.options;
    return `${fileStamp(certFile)} ${fileStamp(keyFile)} ${trustedCaFile === "" ? "" : fileStamp(trustedCaFile)}`;
  }

  #read(): ServerOptions {
    const { options } = this;
    const prefix = options.flagPrefix;
    const flags = [`--${prefix}cert-file`, `--${prefix}key-file`] as const;
    const { cert, key, leaf } = readPair(options.certFile, options.keyFile, ...flags);
    if (Date.parse(leaf.validTo) < this.#clock.wallMs()) {
      this.#logger.warn("the certificate has expired; clients that verify it will not connect until it is replaced", {
        "cert-file": options.certFile,
        "not-after": leaf.validTo,
      });
    }
    return {
      cert,
      key,
      ...(options.trustedCaFile === "" ? {} : { ca: readAuthorities(options.trustedCaFile, prefix) }),
      // Every CA in the file is trusted, an intermediate too, as in Go.
      allowPartialTrustChain: true,
      requestCert: this.requiresCertificate,
      rejectUnauthorized: this.requiresCertificate,
      minVersion: NODE_VERSIONS[options.minVersion] ?? "TLSv1.2",
      maxVersion: NODE_VERSIONS[options.maxVersion] ?? "TLSv1.3",
      ...(options.cipherSuites.length === 0 ? {} : { ciphers: openSslCiphers(options.cipherSuites) }),
    };
  }
}

/** As etcd prints a TLSInfo. */
export function describeTls(tls: TlsOptions): string {
  return (
    `cert = ${tls.certFile}, key = ${tls.keyFile}, client-cert=${tls.clientCertFile}, client-key=${tls.clientKeyFile}, ` +
    `trusted-ca = ${tls.trustedCaFile}, client-cert-auth = ${tls.clientCertAuth}, crl-file = ${tls.crlFile}`
  );
}

/** Node's names of the versions in the flags. */
export const NODE_VERSIONS: Readonly<Record<string, SecureVersion>> = { "TLS1.2": "TLSv1.2", "TLS1.3": "TLSv1.3" };

const TLS13_SUITES = ["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"];

/** The TLS 1.3 suites are always enabled, as in Go. */
export function openSslCiphers(suites: readonly string[]): string {
  return [...new Set([...TLS13_SUITES, ...suites.map((suite) => CIPHER_SUITES.get(suite)!)])].join(":");
}

function checkOptions(tls: TlsOptions): void {
  if (tls.certFile === "" || tls.keyFile === "") {
    throw new TlsError(`KeyFile and CertFile must both be present[key: ${tls.keyFile}, cert: ${tls.certFile}]`);
  }
  if ((tls.clientCertFile === "") !== (tls.clientKeyFile === "")) {
    throw new TlsError(
      `ClientKeyFile and ClientCertFile must both be present or both absent: key: ${tls.clientKeyFile}, cert: ${tls.clientCertFile}]`,
    );
  }
  if (tls.clientCertFile !== "") {
    const flag = (name: string) => `--${tls.flagPrefix}client-${name}-file`;
    readPair(tls.clientCertFile, tls.clientKeyFile, flag("cert"), flag("key"));
  }
  if (tls.allowedCns.length > 0 && tls.allowedHostnames.length > 0) {
    const list = (names: readonly string[]) => `[${names.map((name) => quote(name)).join(" ")}]`;
    throw new TlsError(
      `AllowedCNs and AllowedHostnames are mutually exclusive (cns=${list(tls.allowedCns)}, hostnames=${list(tls.allowedHostnames)})`,
    );
  }
}

export interface CertificateAndKey {
  /** With its chain. */
  readonly cert: Buffer;
  readonly key: Buffer;
  /** The certificate itself. */
  readonly leaf: X509Certificate;
}

/** Reads a certificate and its key, and checks that they match. Throws `TlsError`. */
export function readPair(certFile: string, keyFile: string, certFlag: string, keyFlag: string): CertificateAndKey {
  const cert = readTlsFile(certFile, certFlag);
  const key = readTlsFile(keyFile, keyFlag);
  const leaf = parseCertificates(cert, certFile, certFlag)[0]!;
  const publicKey = readPublicKey(key, keyFile, keyFlag);
  if (!leaf.publicKey.equals(publicKey)) {
    throw new TlsError(
      `tls: private key does not match public key: ${keyFlag} ${keyFile} is not the key of ${certFlag} ${certFile}; give the two that were made together`,
    );
  }
  return { cert, key, leaf };
}

/** Reads CA certificates. Throws `TlsError`. */
export function readAuthorities(path: string, prefix: string): Buffer {
  const flag = `--${prefix}trusted-ca-file`;
  const pem = readTlsFile(path, flag);
  parseCertificates(pem, path, flag);
  return pem;
}

const CERTIFICATE = /-----BEGIN CERTIFICATE-----[^-]*-----END CERTIFICATE-----/g;

function parseCertificates(pem: Buffer, path: string, flag: string): X509Certificate[] {
  const blocks = pem.toString("latin1").match(CERTIFICATE);
  if (blocks === null) {
    throw new TlsError(
      `tls: failed to find any PEM data in certificate input: ${path} holds no "BEGIN CERTIFICATE"; give ${flag} a certificate in PEM`,
    );
  }
  try {
    return blocks.map((block) => new X509Certificate(block));
  } catch (error) {
    throw new TlsError(
      `x509: malformed certificate in ${path} (${(error as Error).message}): give ${flag} a certificate in PEM`,
      { cause: error },
    );
  }
}

function readPublicKey(pem: Buffer, path: string, flag: string) {
  try {
    return createPublicKey(createPrivateKey(pem));
  } catch (error) {
    if (pem.includes("ENCRYPTED")) {
      throw new TlsError(
        `tls: failed to parse private key: ${path} is encrypted; give ${flag} the key without a passphrase (openssl pkey -in … -out …)`,
        { cause: error },
      );
    }
    throw new TlsError(
      `tls: failed to find any PEM data in key input: ${path} holds no private key that can be read (${(error as Error).message}); give ${flag} a key in PEM`,
      { cause: error },
    );
  }
}
