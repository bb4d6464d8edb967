/**
 * A certificate revocation list in a file (DER or PEM), reread when the file has changed. As in etcd, only the serial
 * numbers count: not the issuer, the signature or the dates of the list.
 */
import type { X509Certificate } from "node:crypto";
import { fileProblem, fileStamp, readTlsFile, TlsError } from "./files.ts";

export class RevocationList {
  readonly #path: string;
  readonly #flag: string;
  #stamp = "";
  #serials: ReadonlySet<bigint> = new Set();

  constructor(path: string, flag: string) {
    this.#path = path;
    this.#flag = flag;
  }

  /** Why a certificate chain is refused; undefined when it is accepted. An unreadable list refuses all. */
  async problem(chain: readonly X509Certificate[]): Promise<string | undefined> {
    let serials: ReadonlySet<bigint>;
    try {
      serials = await this.load();
    } catch (error) {
      return error instanceof TlsError ? error.message : fileProblem(this.#path, error);
    }
    for (const { serialNumber } of chain) {
      const serial = BigInt(`0x${serialNumber}`);
      if (serials.has(serial)) return `transport: certificate serial ${hexBytes(serial)} revoked`;
    }
    return undefined;
  }

  /** The revoked serial numbers. Throws `TlsError` when the list cannot be read. */
  async load(): Promise<ReadonlySet<bigint>> {
    const stamp = fileStamp(this.#path);
    if (stamp === this.#stamp) return this.#serials;
    const bytes = readTlsFile(this.#path, this.#flag);
    this.#serials = await parse(bytes, this.#path, this.#flag);
    this.#stamp = stamp;
    return this.#serials;
  }
}

/** Whole bytes, as Go prints a serial number. */
function hexBytes(serial: bigint): string {
  const digits = serial.toString(16);
  return digits.length % 2 === 0 ? digits : `0${digits}`;
}

async function parse(bytes: Buffer, path: string, flag: string): Promise<ReadonlySet<bigint>> {
  // Members without a list do not load the library.
  await import("reflect-metadata");
  const { X509Crl } = await import("@peculiar/x509");
  try {
    const text = bytes.toString("latin1");
    const list = new X509Crl(text.includes("-----BEGIN X509 CRL-----") ? text : bytes);
    return new Set(list.entries.map(({ serialNumber }) => BigInt(`0x${serialNumber}`)));
  } catch (error) {
    throw new TlsError(`x509: malformed crl: ${path}: give ${flag} a revocation list in DER or PEM`, { cause: error });
  }
}
