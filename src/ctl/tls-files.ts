/**
 * Certificates and keys from files, checked before connecting, so that an error names its file. The texts are those of
 * Go's crypto/tls, followed by the file.
 */
import { createPrivateKey, type KeyObject, X509Certificate } from "node:crypto";
import type { TlsOptions } from "../client/raw.ts";
import { badArgs, describeError } from "./exit.ts";
import type { Io } from "./io.ts";

export interface TlsFiles {
  readonly cert: string;
  readonly key: string;
  readonly cacert: string;
}

/** The contents of the named files. Throws ExitError. */
export function readTlsFiles(io: Io, { cert, key, cacert }: TlsFiles): TlsOptions {
  return {
    ...(cert === "" ? {} : pairOf(io, cert, key)),
    ...(cacert === "" ? {} : { ca: authoritiesOf(io, cacert) }),
  };
}

function pairOf(io: Io, certFile: string, keyFile: string): Pick<TlsOptions, "cert" | "key"> {
  const [cert, key] = [readFile(io, certFile), readFile(io, keyFile)];
  const leaf = certificateOf(cert, certFile);
  if (!leaf.checkPrivateKey(keyOf(key, keyFile))) {
    throw badArgs(`tls: private key does not match public key (${keyFile}, ${certFile})`);
  }
  return { cert, key };
}

function certificateOf(pem: Buffer, file: string): X509Certificate {
  const found = blocks(pem);
  const first = found.find(({ type }) => type === "CERTIFICATE");
  if (first !== undefined) return parseCertificate(first, file);
  if (found.length === 0) throw badArgs(`tls: failed to find any PEM data in certificate input (${file})`);
  if (found.length === 1 && isKey(found[0]!)) {
    const problem = "failed to find certificate PEM data in certificate input, but did find a private key";
    throw badArgs(`tls: ${problem}; PEM inputs may have been switched (${file})`);
  }
  const problem = 'failed to find "CERTIFICATE" PEM block in certificate input';
  throw badArgs(`tls: ${problem} after skipping PEM blocks of the following types: ${typesOf(found)} (${file})`);
}

function keyOf(pem: Buffer, file: string): KeyObject {
  const found = blocks(pem);
  const first = found.find(isKey);
  if (first === undefined) {
    if (found.length === 0) throw badArgs(`tls: failed to find any PEM data in key input (${file})`);
    if (found.length === 1 && found[0]!.type === "CERTIFICATE") {
      throw badArgs(`tls: found a certificate rather than a key in the PEM for the private key (${file})`);
    }
    const problem = 'failed to find PEM block with type ending in "PRIVATE KEY" in key input';
    throw badArgs(`tls: ${problem} after skipping PEM blocks of the following types: ${typesOf(found)} (${file})`);
  }
  try {
    return createPrivateKey(first.text);
  } catch {
    const encrypted = /ENCRYPTED/.test(first.text);
    throw badArgs(
      `tls: failed to parse private key (${file}${encrypted ? " is encrypted, which it must not be" : ""})`,
    );
  }
}

function authoritiesOf(io: Io, file: string): Buffer {
  const pem = readFile(io, file);
  const certificates = blocks(pem).filter(({ type }) => type === "CERTIFICATE");
  if (certificates.length === 0) throw badArgs(`tls: failed to find any certificate in PEM form in ${file}`);
  for (const block of certificates) parseCertificate(block, file);
  return pem;
}

function parseCertificate({ text }: Block, file: string): X509Certificate {
  try {
    return new X509Certificate(text);
  } catch {
    throw badArgs(`x509: malformed certificate (${file})`);
  }
}

interface Block {
  readonly type: string;
  readonly text: string;
}

function blocks(pem: Buffer): Block[] {
  const pattern = /-----BEGIN ([^\n-]+)-----[^-]*-----END \1-----/g;
  return Array.from(pem.toString("latin1").matchAll(pattern), ([text, type]) => ({ text, type: type! }));
}

const isKey = ({ type }: Block) => type.endsWith("PRIVATE KEY");
const typesOf = (found: readonly Block[]) => `[${found.map(({ type }) => type).join(" ")}]`;

function readFile(io: Io, path: string): Buffer {
  try {
    return Buffer.from(io.disk.readFile(path));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "EISDIR") throw badArgs(`read ${path}: is a directory`);
    throw badArgs(describeError(error));
  }
}
