/** CAs, certificates and revocation lists, created for one test. */
import "reflect-metadata";
import { KeyObject, webcrypto } from "node:crypto";
import { writeFileSync } from "node:fs";
import { isIP } from "node:net";
import { join } from "node:path";
import * as x509 from "@peculiar/x509";

const ALGORITHM = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" };
const HOUR_MS = 3_600_000;
const crypto = webcrypto as unknown as NonNullable<
  Parameters<typeof x509.X509CertificateGenerator.createSelfSigned>[1]
>;

export interface Pair {
  readonly cert: string;
  readonly key: string;
}

export interface IssueOptions {
  readonly cn?: string;
  /** Addresses and DNS names. */
  readonly names?: readonly string[];
  /** Hexadecimal. */
  readonly serial?: string;
  readonly expired?: boolean;
  readonly usages?: readonly ("server" | "client")[];
}

export class Authority {
  readonly pem: string;
  readonly #name: string;
  readonly #keys: CryptoKeyPair;
  #serial = 1;

  private constructor(name: string, keys: CryptoKeyPair, pem: string) {
    this.#name = name;
    this.#keys = keys;
    this.pem = pem;
  }

  static async create(cn: string): Promise<Authority> {
    const keys = await newKeys();
    const certificate = await x509.X509CertificateGenerator.createSelfSigned(
      {
        serialNumber: "01",
        name: `CN=${cn}`,
        ...dates(false),
        keys,
        signingAlgorithm: ALGORITHM,
        extensions: [new x509.BasicConstraintsExtension(true, undefined, true)],
      },
      crypto,
    );
    return new Authority(`CN=${cn}`, keys, `${certificate.toString("pem")}\n`);
  }

  /** An intermediate CA signed by this one. */
  async intermediate(cn: string): Promise<Authority> {
    const keys = await newKeys();
    const pem = await this.#sign(`CN=${cn}`, keys, {}, [new x509.BasicConstraintsExtension(true, undefined, true)]);
    return new Authority(`CN=${cn}`, keys, pem);
  }

  async issue(options: IssueOptions = {}): Promise<Pair> {
    const { cn = "test", names = ["127.0.0.1", "localhost"], usages = ["server", "client"] } = options;
    const keys = await newKeys();
    const { serverAuth, clientAuth } = x509.ExtendedKeyUsage;
    const general = names.map((value) => ({ type: isIP(value) === 0 ? "dns" : "ip", value }) as const);
    const cert = await this.#sign([{ CN: [cn] }], keys, options, [
      new x509.BasicConstraintsExtension(false, undefined, true),
      new x509.ExtendedKeyUsageExtension(usages.map((usage) => (usage === "server" ? serverAuth : clientAuth))),
      ...(general.length === 0 ? [] : [new x509.SubjectAlternativeNameExtension(general)]),
    ]);
    const key = KeyObject.from(keys.privateKey as webcrypto.CryptoKey).export({ type: "pkcs8", format: "pem" });
    return { cert, key: key.toString() };
  }

  /** A DER list that revokes these serial numbers. */
  async revoke(...serials: readonly string[]): Promise<Buffer> {
    const list = await x509.X509CrlGenerator.create(
      {
        issuer: this.#name,
        thisUpdate: new Date(),
        nextUpdate: new Date(Date.now() + HOUR_MS),
        signingAlgorithm: ALGORITHM,
        signingKey: this.#keys.privateKey,
        entries: serials.map((serialNumber) => ({ serialNumber, revocationDate: new Date() })),
      },
      crypto,
    );
    return Buffer.from(list.rawData);
  }

  async #sign(
    subject: string | x509.JsonName,
    keys: CryptoKeyPair,
    { serial, expired }: IssueOptions,
    extensions: x509.Extension[],
  ): Promise<string> {
    const certificate = await x509.X509CertificateGenerator.create(
      {
        serialNumber: serial ?? (++this.#serial).toString(16).padStart(2, "0"),
        subject,
        issuer: this.#name,
        ...dates(expired === true),
        publicKey: keys.publicKey,
        signingKey: this.#keys.privateKey,
        signingAlgorithm: ALGORITHM,
        extensions,
      },
      crypto,
    );
    return `${certificate.toString("pem")}\n`;
  }
}

type CryptoKeyPair = Parameters<typeof x509.X509CertificateGenerator.createSelfSigned>[0]["keys"];

const newKeys = async (): Promise<CryptoKeyPair> =>
  (await webcrypto.subtle.generateKey(ALGORITHM, true, ["sign", "verify"])) as unknown as CryptoKeyPair;

const dates = (expired: boolean) => ({
  notBefore: new Date(Date.now() - 2 * HOUR_MS),
  notAfter: new Date(Date.now() + (expired ? -HOUR_MS : HOUR_MS)),
});

/** Writes `name.crt` and `name.key`. */
export function writePair(directory: string, name: string, pair: Pair): { certFile: string; keyFile: string } {
  const certFile = join(directory, `${name}.crt`);
  const keyFile = join(directory, `${name}.key`);
  writeFileSync(certFile, pair.cert);
  writeFileSync(keyFile, pair.key);
  return { certFile, keyFile };
}
