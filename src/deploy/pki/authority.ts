/**
 * A certificate authority: its own certificate and key, made here or given (cfssl's, kubeadm's, a company's), and what it
 * signs. Validity begins a few minutes ago, because the clocks of hosts differ, and never outlasts the authority's own.
 */
import { type KeyObject, X509Certificate } from "node:crypto";
import { isIP } from "node:net";
import type { Random } from "../../base/random.ts";
import { DeployError } from "../common/context.ts";
import { type KeyAlgorithm, newKey, parseKey, publicDer, signerOf } from "./keys.ts";
import { type X509, x509Library } from "./library.ts";

/**
 * What a certificate is for. A server's is shown by the JSON gateway of stock etcd to its own server, and a peer's to
 * the other members, so both are for clients too. "member" is one for all of these, as many deployments have it.
 */
export type Purpose = "server" | "peer" | "member" | "client";

export interface Request {
  readonly commonName: string;
  readonly purpose: Purpose;
  /** Addresses and DNS names. */
  readonly names: readonly string[];
  readonly days: number;
}

export interface Now {
  readonly nowMs: number;
  readonly random: Random;
}

export interface Revocation {
  /** Hexadecimal. */
  readonly serial: string;
  readonly revokedMs: number;
}

export const DAY_MS = 24 * 3600 * 1000;
const BACKDATED_MS = 5 * 60 * 1000;
const LIST_DAYS = 365;

export class Authority {
  readonly pem: string;
  readonly key: KeyObject;
  readonly certificate: X509Certificate;

  /** Use create or parse. */
  private constructor(pem: string, key: KeyObject) {
    this.pem = pem;
    this.key = key;
    this.certificate = new X509Certificate(pem);
  }

  static async create(commonName: string, algorithm: KeyAlgorithm, days: number, now: Now): Promise<Authority> {
    const x509 = await x509Library();
    const key = await newKey(algorithm);
    const { privateKey, algorithm: signingAlgorithm } = await signerOf(key);
    const { keyCertSign, cRLSign } = x509.KeyUsageFlags;
    const name = new x509.Name([{ CN: [commonName] }]);
    const certificate = await x509.X509CertificateGenerator.create({
      serialNumber: serialNumber(now.random),
      subject: name,
      issuer: name,
      notBefore: new Date(now.nowMs - BACKDATED_MS),
      notAfter: new Date(now.nowMs + days * DAY_MS),
      publicKey: publicDer(key),
      signingKey: privateKey,
      signingAlgorithm,
      extensions: [
        new x509.BasicConstraintsExtension(true, undefined, true),
        new x509.KeyUsagesExtension(keyCertSign | cRLSign, true),
        await x509.SubjectKeyIdentifierExtension.create(publicDer(key)),
      ],
    });
    return new Authority(`${certificate.toString("pem")}\n`, key);
  }

  /** Throws DeployError when they are not an authority's certificate and its key. */
  static parse(certPem: string, certPath: string, keyText: string, keyPath: string): Authority {
    const key = parseKey(keyText, keyPath);
    const authority = new Authority(firstCertificate(certPem, certPath), key);
    const { certificate } = authority;
    if (!certificate.ca)
      throw new DeployError(`${certPath} is not the certificate of an authority (CA:TRUE is missing)`);
    if (!certificate.checkPrivateKey(key)) throw new DeployError(`${keyPath} is not the key of ${certPath}`);
    return authority;
  }

  /** A certificate in PEM for a key made here or elsewhere: `publicKey` is its SubjectPublicKeyInfo in DER. */
  async issue(publicKey: Uint8Array, request: Request, now: Now): Promise<string> {
    const x509 = await x509Library();
    const issuer = new x509.X509Certificate(this.pem);
    const { privateKey, algorithm } = await signerOf(this.key);
    const untilMs = Math.min(now.nowMs + request.days * DAY_MS, issuer.notAfter.getTime());
    if (untilMs <= now.nowMs) throw new DeployError(`the authority ${issuer.subject} has expired: make a new one`);
    const certificate = await x509.X509CertificateGenerator.create({
      serialNumber: serialNumber(now.random),
      subject: [{ CN: [request.commonName] }],
      // The name as it is encoded in the authority's own certificate: chains are built by comparing bytes.
      issuer: issuer.subjectName,
      notBefore: new Date(now.nowMs - BACKDATED_MS),
      notAfter: new Date(untilMs),
      publicKey,
      signingKey: privateKey,
      signingAlgorithm: algorithm,
      extensions: [
        ...extensionsFor(x509, request),
        await x509.SubjectKeyIdentifierExtension.create(publicKey),
        await x509.AuthorityKeyIdentifierExtension.create(issuer.publicKey),
      ],
    });
    return `${certificate.toString("pem")}\n`;
  }

  /** A revocation list in DER, which is what stock etcd reads of `--client-crl-file`. */
  async revocationList(revoked: readonly Revocation[], { nowMs }: Now): Promise<Uint8Array> {
    const x509 = await x509Library();
    const { privateKey, algorithm } = await signerOf(this.key);
    const list = await x509.X509CrlGenerator.create({
      issuer: new x509.X509Certificate(this.pem).subjectName,
      thisUpdate: new Date(nowMs - BACKDATED_MS),
      nextUpdate: new Date(nowMs + LIST_DAYS * DAY_MS),
      signingAlgorithm: algorithm,
      signingKey: privateKey,
      entries: revoked.map(({ serial, revokedMs }) => ({
        serialNumber: serial,
        revocationDate: new Date(revokedMs),
      })),
    });
    return new Uint8Array(list.rawData);
  }
}

/** A signing request in PEM, for an authority elsewhere. */
export async function signingRequest(key: KeyObject, request: Omit<Request, "days">): Promise<string> {
  const x509 = await x509Library();
  const { algorithm, privateKey, publicKey } = await signerOf(key);
  const csr = await x509.Pkcs10CertificateRequestGenerator.create({
    name: new x509.Name([{ CN: [request.commonName] }]).toString(),
    keys: { privateKey, publicKey },
    signingAlgorithm: algorithm,
    extensions: extensionsFor(x509, request),
  });
  return `${csr.toString("pem")}\n`;
}

/** The first certificate of a PEM file, which may hold a chain or the key too. Throws DeployError. */
export function firstCertificate(pem: string, path: string): string {
  const found = certificatesOf(pem)[0];
  if (found === undefined) throw new DeployError(`${path} has no certificate in PEM`);
  try {
    new X509Certificate(found);
  } catch {
    throw new DeployError(`${path} is not a certificate that can be read`);
  }
  return found;
}

export const certificatesOf = (pem: string): string[] =>
  pem.match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----\n?/g) ?? [];

function extensionsFor(x509: X509, { purpose, names }: Omit<Request, "days">) {
  const { digitalSignature, keyEncipherment } = x509.KeyUsageFlags;
  const { serverAuth, clientAuth } = x509.ExtendedKeyUsage;
  const general = names.map((value) => ({ type: isIP(value) === 0 ? ("dns" as const) : ("ip" as const), value }));
  return [
    new x509.BasicConstraintsExtension(false, undefined, true),
    new x509.KeyUsagesExtension(digitalSignature | keyEncipherment, true),
    new x509.ExtendedKeyUsageExtension(purpose === "client" ? [clientAuth] : [serverAuth, clientAuth]),
    ...(general.length === 0 ? [] : [new x509.SubjectAlternativeNameExtension(general)]),
  ];
}

/** 126 random bits: positive, and never shorter than others. */
function serialNumber(random: Random): string {
  const high = (random.uint64() & 0x3fff_ffff_ffff_ffffn) | 0x2000_0000_0000_0000n;
  return `${high.toString(16)}${random.uint64().toString(16).padStart(16, "0")}`;
}
