/**
 * The server's self-signed certificate (`--auto-tls`): ECDSA on P-521, valid for the hosts it listens on, stored in a
 * directory and reused at the next start. Source: etcd's `transport.SelfCert`.
 */
import { KeyObject, randomBytes, webcrypto } from "node:crypto";
import { existsSync, writeFileSync } from "node:fs";
import { isIP } from "node:net";
import { join, resolve } from "node:path";
import type { Clock } from "../../base/clock.ts";
import type { Logger } from "../../base/log.ts";
import { makeDirs } from "../../base/make-dir.ts";
import { TlsError } from "./files.ts";

export interface SelfSignedOptions {
  /** Created when missing; gets `cert.pem` and `key.pem`. */
  readonly directory: string;
  /** Addresses and names, without ports. */
  readonly hosts: readonly string[];
  readonly validityYears: number;
  readonly clock: Clock;
  readonly logger: Logger;
}

const YEAR_MS = 365 * 24 * 3600 * 1000;

/** Paths of the certificate and key, created now unless both exist. Throws `TlsError` when they cannot be written. */
export async function selfSignedCertificate(
  options: SelfSignedOptions,
): Promise<{ certFile: string; keyFile: string }> {
  const { directory, logger } = options;
  const certFile = resolve(join(directory, "cert.pem"));
  const keyFile = resolve(join(directory, "key.pem"));
  if (existsSync(certFile) && existsSync(keyFile)) return { certFile, keyFile };
  const notBefore = new Date(options.clock.wallMs());
  const notAfter = new Date(notBefore.getTime() + options.validityYears * YEAR_MS);
  logger.warn("automatically generate certificates", {
    "certificate-validity-bound-not-after": notAfter.toISOString(),
  });
  const { certPem, keyPem } = await generate(options.hosts, notBefore, notAfter);
  try {
    makeDirs(directory, 0o700);
    writeFileSync(certFile, certPem, { mode: 0o644 });
    logger.info("created cert file", { path: certFile });
    writeFileSync(keyFile, keyPem, { mode: 0o600 });
    logger.info("created key file", { path: keyFile });
  } catch (error) {
    throw new TlsError(
      `cannot keep the generated certificate in ${directory}: ${(error as Error).message}; make the directory writable, or give --cert-file and --key-file`,
      { cause: error },
    );
  }
  return { certFile, keyFile };
}

async function generate(hosts: readonly string[], notBefore: Date, notAfter: Date) {
  // Members with their own certificates do not load the library.
  await import("reflect-metadata");
  const x509 = await import("@peculiar/x509");
  const algorithm = { name: "ECDSA", namedCurve: "P-521", hash: "SHA-512" };
  const keys = await webcrypto.subtle.generateKey(algorithm, true, ["sign", "verify"]);
  const { KeyUsageFlags } = x509;
  const names = [...new Set(hosts.filter((host) => host !== ""))].map(
    (value) => ({ type: isIP(value) === 0 ? "dns" : "ip", value }) as const,
  );
  const certificate = await x509.X509CertificateGenerator.createSelfSigned(
    {
      serialNumber: randomBytes(15).toString("hex"),
      name: "O=etcd",
      notBefore,
      notAfter,
      keys,
      signingAlgorithm: algorithm,
      extensions: [
        new x509.KeyUsagesExtension(
          KeyUsageFlags.digitalSignature | KeyUsageFlags.keyEncipherment | KeyUsageFlags.cRLSign,
          true,
        ),
        new x509.ExtendedKeyUsageExtension([x509.ExtendedKeyUsage.serverAuth]),
        new x509.BasicConstraintsExtension(true, undefined, true),
        ...(names.length === 0 ? [] : [new x509.SubjectAlternativeNameExtension(names)]),
      ],
    },
    webcrypto as unknown as Parameters<typeof x509.X509CertificateGenerator.createSelfSigned>[1],
  );
  return {
    certPem: `${certificate.toString("pem")}\n`,
    keyPem: KeyObject.from(keys.privateKey).export({ type: "sec1", format: "pem" }),
  };
}
