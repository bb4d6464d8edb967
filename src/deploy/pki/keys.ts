/** Private keys: made here, written as PKCS #8 in PEM, read in any form that OpenSSL writes without a password. */
import { createPrivateKey, createPublicKey, generateKeyPair, type KeyObject, webcrypto } from "node:crypto";
import { promisify } from "node:util";
import { DeployError } from "../common/context.ts";

export const KEY_ALGORITHMS = ["ecdsa-p256", "ecdsa-p384", "rsa-2048", "rsa-3072", "rsa-4096", "ed25519"] as const;
export type KeyAlgorithm = (typeof KEY_ALGORITHMS)[number];

/** Throws DeployError. */
export function keyAlgorithm(text: string): KeyAlgorithm {
  const found = KEY_ALGORITHMS.find((name) => name === text);
  if (found === undefined)
    throw new DeployError(`there is no key algorithm ${text}; choose one of ${KEY_ALGORITHMS.join(", ")}`);
  return found;
}

const generate = promisify(generateKeyPair);

export async function newKey(algorithm: KeyAlgorithm): Promise<KeyObject> {
  if (algorithm === "ed25519") return (await generate("ed25519")).privateKey;
  if (algorithm === "ecdsa-p256" || algorithm === "ecdsa-p384") {
    const namedCurve = algorithm === "ecdsa-p256" ? "P-256" : "P-384";
    return (await generate("ec", { namedCurve })).privateKey;
  }
  return (await generate("rsa", { modulusLength: Number(algorithm.slice(4)) })).privateKey;
}

export const keyPem = (key: KeyObject): string => key.export({ type: "pkcs8", format: "pem" }).toString();

/** SubjectPublicKeyInfo in DER. */
export const publicDer = (key: KeyObject): Buffer =>
  (key.type === "private" ? createPublicKey(key) : key).export({ type: "spki", format: "der" });

/** Throws DeployError. */
export function parseKey(pem: string, path: string): KeyObject {
  if (/ENCRYPTED/.test(pem))
    throw new DeployError(`${path} is protected by a password, which etcd cannot ask for: write it without one`);
  try {
    return createPrivateKey(pem);
  } catch {
    throw new DeployError(`${path} is not a private key in PEM`);
  }
}

/** For people: "ECDSA P-256", "RSA 2048", "Ed25519". */
export function describeKey(key: KeyObject): string {
  const details = key.asymmetricKeyDetails ?? {};
  switch (key.asymmetricKeyType) {
    case "ec":
      return `ECDSA ${CURVES[details.namedCurve ?? ""] ?? details.namedCurve}`;
    case "rsa":
      return `RSA ${details.modulusLength}`;
    case "ed25519":
      return "Ed25519";
    default:
      return key.asymmetricKeyType ?? "unknown";
  }
}

const CURVES: Readonly<Record<string, string>> = { prime256v1: "P-256", secp384r1: "P-384", secp521r1: "P-521" };
const HASHES: Readonly<Record<string, string>> = { "P-256": "SHA-256", "P-384": "SHA-384", "P-521": "SHA-512" };

export interface SigningAlgorithm {
  readonly name: string;
  readonly namedCurve?: string;
  readonly hash?: string;
}

export interface Signer {
  readonly algorithm: SigningAlgorithm;
  readonly privateKey: webcrypto.CryptoKey;
  readonly publicKey: webcrypto.CryptoKey;
}

/** The key as WebCrypto takes it. Throws DeployError for a kind that certificates of etcd cannot be signed with. */
export async function signerOf(key: KeyObject): Promise<Signer> {
  const algorithm = signingAlgorithm(key);
  const pkcs8 = key.export({ type: "pkcs8", format: "der" });
  const [privateKey, publicKey] = await Promise.all([
    webcrypto.subtle.importKey("pkcs8", pkcs8, algorithm, true, ["sign"]),
    webcrypto.subtle.importKey("spki", publicDer(key), algorithm, true, ["verify"]),
  ]);
  return { algorithm, privateKey, publicKey };
}

function signingAlgorithm(key: KeyObject): SigningAlgorithm {
  if (key.asymmetricKeyType === "ed25519") return { name: "Ed25519" };
  if (key.asymmetricKeyType === "rsa") return { name: "RSASSA-PKCS1-v1_5", hash: "SHA-256" };
  const curve = CURVES[key.asymmetricKeyDetails?.namedCurve ?? ""];
  const hash = HASHES[curve ?? ""];
  if (key.asymmetricKeyType === "ec" && curve !== undefined && hash !== undefined)
    return { name: "ECDSA", namedCurve: curve, hash };
  throw new DeployError(`a key of the kind ${describeKey(key)} cannot sign certificates; use RSA, ECDSA or Ed25519`);
}
