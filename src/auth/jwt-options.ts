import { createPrivateKey, createPublicKey, type KeyObject } from "node:crypto";
import type { Logger } from "../base/log.ts";
import { GoValueError, parseGoDuration } from "../config/values/go-value.ts";
import { AuthOptionsError } from "./problems.ts";

/** The options of `--auth-token=jwt,…`, and their keys. Source: etcd `server/auth/options.go`. */
export interface JwtOptions {
  readonly method: SigningMethod;
  /** Undefined when this member only verifies tokens. */
  readonly signingKey: KeyObject | Buffer | undefined;
  readonly verifyingKey: KeyObject | Buffer;
  readonly ttlMs: number;
}

export interface SigningMethod {
  readonly name: string;
  readonly family: "rsa" | "rsa-pss" | "ec" | "ed25519" | "hmac";
  /** Undefined for EdDSA, which hashes itself. */
  readonly hash: string | undefined;
  /** The only curve the method allows, by OpenSSL's name. */
  readonly curve?: string;
}

/** Throws AuthOptionsError with etcd's texts; logs what etcd only logs. */
export function readJwtOptions(
  values: ReadonlyMap<string, string>,
  readFile: (path: string) => Buffer,
  logger: Logger,
): JwtOptions {
  if (values.get("sign-method") === "none") {
    throw new AuthOptionsError("unsupported signing method: *jwt.signingMethodNone");
  }
  const { method, publicPem, privatePem, ttlMs } = parse(values, readFile, logger);
  const unknown = [...values.keys()].filter((name) => !OPTIONS.includes(name));
  if (unknown.length > 0) logger.warn("unknown JWT options", { keys: unknown });
  if (method.family === "hmac") {
    if (privatePem.length === 0) throw new AuthOptionsError("auth: missing key data");
    return { method, signingKey: privatePem, verifyingKey: privatePem, ttlMs };
  }
  const signingKey = privatePem.length > 0 ? readPrivateKey(privatePem, method) : undefined;
  const publicKey = publicPem.length > 0 ? readPublicKey(publicPem, method) : undefined;
  if (signingKey === undefined) {
    if (publicKey === undefined) throw new AuthOptionsError("auth: missing key data");
    return { method, signingKey, verifyingKey: publicKey, ttlMs };
  }
  const verifyingKey = createPublicKey(signingKey);
  if (publicKey !== undefined && !publicKey.equals(verifyingKey)) {
    throw new AuthOptionsError("auth: public and private keys don't match");
  }
  return { method, signingKey, verifyingKey, ttlMs };
}

const OPTIONS = ["sign-method", "pub-key", "priv-key", "ttl"];
const TTL_DEFAULT_MS = 5 * 60_000;

interface Parsed {
  readonly method: SigningMethod;
  readonly publicPem: Buffer;
  readonly privatePem: Buffer;
  readonly ttlMs: number;
}

/** Details of unreadable or invalid options go to the log; the error only says that something is wrong. */
function parse(values: ReadonlyMap<string, string>, readFile: (path: string) => Buffer, logger: Logger): Parsed {
  const file = (name: string): Buffer => {
    const path = values.get(name) ?? "";
    return path === "" ? Buffer.alloc(0) : readFile(path);
  };
  try {
    const ttl = values.get("ttl") ?? "";
    const ttlMs = ttl === "" ? TTL_DEFAULT_MS : parseGoDuration(ttl);
    const publicPem = file("pub-key");
    const privatePem = file("priv-key");
    const name = values.get("sign-method") ?? "";
    const method = METHODS.find((one) => one.name === name);
    if (method === undefined) throw new AuthOptionsError("auth: invalid auth signature method");
    return { method, publicPem, privatePem, ttlMs };
  } catch (error) {
    const isExpected = error instanceof AuthOptionsError || error instanceof GoValueError || isFileError(error);
    if (!isExpected) throw error;
    logger.error("problem loading JWT options", { error });
    throw new AuthOptionsError("auth: invalid auth options", { cause: error });
  }
}

const isFileError = (error: unknown): boolean => error instanceof Error && "syscall" in error;

const METHODS: readonly SigningMethod[] = [
  { name: "HS256", family: "hmac", hash: "sha256" },
  { name: "HS384", family: "hmac", hash: "sha384" },
  { name: "HS512", family: "hmac", hash: "sha512" },
  { name: "RS256", family: "rsa", hash: "sha256" },
  { name: "RS384", family: "rsa", hash: "sha384" },
  { name: "RS512", family: "rsa", hash: "sha512" },
  { name: "PS256", family: "rsa-pss", hash: "sha256" },
  { name: "PS384", family: "rsa-pss", hash: "sha384" },
  { name: "PS512", family: "rsa-pss", hash: "sha512" },
  { name: "ES256", family: "ec", hash: "sha256", curve: "prime256v1" },
  { name: "ES384", family: "ec", hash: "sha384", curve: "secp384r1" },
  { name: "ES512", family: "ec", hash: "sha512", curve: "secp521r1" },
  { name: "EdDSA", family: "ed25519", hash: undefined },
];

/** Names of the key families, in OpenSSL and in the errors of Go's library. */
const FAMILIES = {
  rsa: ["rsa", "RSA"],
  "rsa-pss": ["rsa", "RSA"],
  ec: ["ec", "ECDSA"],
  ed25519: ["ed25519", "Ed25519"],
} as const;

function readPrivateKey(pem: Buffer, method: SigningMethod): KeyObject {
  return readKey(pem, method, "private", createPrivateKey);
}

/** A certificate's key is accepted, but not a private key's: it would be in the wrong file. */
function readPublicKey(pem: Buffer, method: SigningMethod): KeyObject {
  return readKey(pem, method, "public", (text) => {
    if (text.includes("PRIVATE KEY-----")) throw new TypeError("a private key was given for the public one");
    return createPublicKey(text);
  });
}

function readKey(
  pem: Buffer,
  { family }: SigningMethod,
  kind: "private" | "public",
  create: (pem: Buffer) => KeyObject,
): KeyObject {
  const [type, name] = FAMILIES[family as keyof typeof FAMILIES];
  if (!pem.includes("-----BEGIN ")) {
    throw new AuthOptionsError("invalid key: Key must be a PEM encoded PKCS1 or PKCS8 key");
  }
  let key: KeyObject;
  try {
    key = create(pem);
  } catch (error) {
    throw new AuthOptionsError(`key is not a valid ${name} ${kind} key`, { cause: error });
  }
  if (key.asymmetricKeyType !== type) throw new AuthOptionsError(`key is not a valid ${name} ${kind} key`);
  return key;
}
