import { createPrivateKey, createPublicKey, type KeyObject } from "node:crypto";
import type { Logger } from "../base/log.ts";
import { GoValueError, parseGoDuration } from "../config/values/go-value.ts";
import { AuthOptionsError } from "./problems.ts";

/** The options of `--auth-token=jwt,…`, and their keys. Source: etcd `server/auth/options.go`. */
export interface JwtOptions {
  readonly method: SigningMethod;
  readonly keys: JwtKeys;
  readonly ttlMs: number;
  /**
   * Tokens need not name a revision of users and roles, if they name an end: they stay good when users change, whose
   * present permissions they have. For tokens that others than this cluster make. Not in etcd.
   */
  readonly revisionOptional: boolean;
  /** The keys of the files as they are now; undefined when nothing has changed. Throws AuthOptionsError, or what the file system says. */
  reread(): JwtKeys | undefined;
}

export interface JwtKeys {
  /** Undefined when this member only verifies tokens. */
  readonly signingKey: KeyObject | Buffer | undefined;
  /** A signature by one of them is enough, so that keys can be changed one member after the other. */
  readonly verifyingKeys: readonly (KeyObject | Buffer)[];
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
  const revision = values.get("revision") ?? "required";
  if (revision !== "required" && revision !== "optional") {
    throw new AuthOptionsError(`auth: invalid auth options: revision is ${revision}, give required or optional`);
  }
  const unknown = [...values.keys()].filter((name) => !OPTIONS.includes(name));
  if (unknown.length > 0) logger.warn("unknown JWT options", { keys: unknown });
  let known = Buffer.concat([publicPem, privatePem]);
  return {
    method,
    keys: readKeys(method, publicPem, privatePem),
    ttlMs,
    revisionOptional: revision === "optional",
    reread() {
      const read = (name: string): Buffer => (values.get(name) ? readFile(values.get(name)!) : Buffer.alloc(0));
      const [publicNow, privateNow] = [read("pub-key"), read("priv-key")];
      const now = Buffer.concat([publicNow, privateNow]);
      if (now.equals(known)) return undefined;
      const keys = readKeys(method, publicNow, privateNow);
      known = now;
      return keys;
    },
  };
}

function readKeys(method: SigningMethod, publicPem: Buffer, privatePem: Buffer): JwtKeys {
  if (method.family === "hmac") {
    if (privatePem.length === 0) throw new AuthOptionsError("auth: missing key data");
    return { signingKey: privatePem, verifyingKeys: [privatePem] };
  }
  const signingKey = privatePem.length > 0 ? readPrivateKey(privatePem, method) : undefined;
  const publicKeys = publicPem.length > 0 ? blocksOf(publicPem).map((pem) => readPublicKey(pem, method)) : [];
  if (signingKey === undefined) {
    if (publicKeys.length === 0) throw new AuthOptionsError("auth: missing key data");
    return { signingKey, verifyingKeys: publicKeys };
  }
  const own = createPublicKey(signingKey);
  if (publicKeys.length > 0 && !publicKeys.some((key) => key.equals(own))) {
    throw new AuthOptionsError("auth: public and private keys don't match");
  }
  return { signingKey, verifyingKeys: [own, ...publicKeys.filter((key) => !key.equals(own))] };
}

/** A file may have several keys, one behind the other. One that has none is given as it is, for the error. */
function blocksOf(pem: Buffer): Buffer[] {
  const blocks = pem.toString("latin1").match(/-----BEGIN ([^-]+)-----[\s\S]*?-----END \1-----/g);
  if (blocks === null) return [pem];
  if (blocks.length > KEYS_MAX)
    throw new AuthOptionsError(`auth: invalid auth options: more than ${KEYS_MAX} public keys`);
  return blocks.map((block) => Buffer.from(block, "latin1"));
}

/** Each costs a check of every token that none before it has signed. */
const KEYS_MAX = 16;
const OPTIONS = ["sign-method", "pub-key", "priv-key", "ttl", "revision"];
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
