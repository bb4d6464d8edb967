/**
 * The system's trusted CAs, used when no CA is given: the file named by OpenSSL's variable, or the first one of a Linux
 * distribution, in the order of Go's programs. Node's built-in list is the fallback.
 */
import { type Disk, systemDisk } from "../base/disk.ts";

const FILES = [
  "/etc/ssl/certs/ca-certificates.crt",
  "/etc/pki/tls/certs/ca-bundle.crt",
  "/etc/ssl/ca-bundle.pem",
  "/etc/pki/tls/cacert.pem",
  "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
  "/etc/ssl/cert.pem",
];

/** PEM; undefined when there is no such file. Reads it once. */
export function systemRoots(): Uint8Array | undefined {
  cached ??= { pem: readRoots(systemDisk, process.env) };
  return cached.pem;
}

let cached: { readonly pem: Uint8Array | undefined } | undefined;

function readRoots(disk: Disk, env: Readonly<Record<string, string | undefined>>): Uint8Array | undefined {
  const named = env["SSL_CERT_FILE"];
  const found = firstOf(disk, named ? [named] : FILES);
  const extra = firstOf(disk, env["NODE_EXTRA_CA_CERTS"] ? [env["NODE_EXTRA_CA_CERTS"]] : []);
  return found && extra ? Buffer.concat([found, Buffer.from("\n"), extra]) : found;
}

function firstOf(disk: Disk, paths: readonly string[]): Uint8Array | undefined {
  for (const path of paths) {
    try {
      return disk.readFile(path);
    } catch {
      // Try the next one.
    }
  }
  return undefined;
}
