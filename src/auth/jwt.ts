import * as crypto from "node:crypto";
import type { Clock } from "../base/clock.ts";
import { Complaints } from "../base/complaints.ts";
import type { Logger } from "../base/log.ts";
import { AuthInfo } from "./auth-info.ts";
import type { JwtKeys, JwtOptions } from "./jwt-options.ts";
import type { AuthProblem } from "./problems.ts";
import type { TokenProvider } from "./token-provider.ts";

/** Tokens with a verified signature, so that a client's next request need not verify it again. */
const VERIFIED_MAX = 10_000;
/** The files of the keys are looked at again after so long. */
const REREAD_MS = 10_000;
/** Longer tokens cannot be ours. */
const TOKEN_LENGTH_MAX = 16 * 1024;

/**
 * Signed tokens (RFC 7519): they carry the user's name, the auth revision at creation and the expiry, so no member has
 * to store them. After a change of users or roles the revision invalidates them, and clients get new ones. Source: etcd
 * `server/auth/jwt.go`. The files of the keys are read again from time to time: what a key that is gone has signed is not
 * good any more.
 */
export class JwtTokens implements TokenProvider {
  readonly #options: JwtOptions;
  readonly #clock: Clock;
  readonly #logger: Logger;
  readonly #complaints: Complaints;
  #keys: JwtKeys;
  #rereadMs: number;
  /** Oldest first. */
  readonly #verified = new Map<string, Claims>();

  constructor({ options, clock, logger }: { options: JwtOptions; clock: Clock; logger: Logger }) {
    this.#options = options;
    this.#clock = clock;
    this.#logger = logger;
    this.#complaints = new Complaints(logger, clock);
    this.#keys = options.keys;
    this.#rereadMs = clock.nowMs() + REREAD_MS;
  }

  enable(): void {}

  disable(): void {}

  /** The change itself, by its new revision, has invalidated all tokens. */
  invalidateUser(): void {}

  newPrefix(): string {
    return "";
  }

  isCostly(token: string): boolean {
    return !this.#verified.has(token);
  }

  indexOf(): number {
    return 0;
  }

  assign(username: string, revision: number): { readonly token: string } | AuthProblem {
    this.#rereadKeys();
    const { method, ttlMs } = this.#options;
    const { signingKey } = this.#keys;
    if (signingKey === undefined) return "verifyOnlyKey";
    if (method.curve !== undefined && curveOf(signingKey) !== method.curve) return "invalidSigningKey";
    const exp = Math.floor((this.#clock.wallMs() + ttlMs) / 1000);
    const text = `${encodeJson({ alg: method.name, typ: "JWT" })}.${encodeJson({ exp, revision, username })}`;
    return { token: `${text}.${sign(method, signingKey, text).toString("base64url")}` };
  }

  info(token: string, revision: number): AuthInfo | undefined {
    this.#rereadKeys();
    const claims = this.#verified.get(token) ?? this.#verify(token);
    if (claims === undefined) return undefined;
    const wallMs = this.#clock.wallMs();
    if (wallMs < claims.endMs && wallMs >= claims.startMs) {
      return claims.hasRevision ? claims.info : new AuthInfo(claims.info.username, revision);
    }
    this.#verified.delete(token);
    this.#warn("token is expired or not valid yet");
    return undefined;
  }

  /** What was verified with other keys is verified again. Files that cannot be used leave the keys as they are. */
  #rereadKeys(): void {
    const nowMs = this.#clock.nowMs();
    if (nowMs < this.#rereadMs) return;
    this.#rereadMs = nowMs + REREAD_MS;
    try {
      const keys = this.#options.reread();
      if (keys === undefined) return;
      this.#keys = keys;
      this.#verified.clear();
      this.#logger.info("the keys of JWT tokens have changed", { "verifying-keys": keys.verifyingKeys.length });
    } catch (error) {
      this.#complaints.warn("the keys of JWT tokens cannot be read again; those read before stay in use", { error });
    }
  }

  #verify(token: string): Claims | undefined {
    const isTooLong = token.length > TOKEN_LENGTH_MAX;
    const claims = isTooLong ? "token is malformed" : read(this.#options, this.#keys, token);
    if (typeof claims === "string") {
      this.#warn(claims);
      return undefined;
    }
    if (this.#verified.size >= VERIFIED_MAX) this.#verified.delete(this.#verified.keys().next().value!);
    this.#verified.set(token, claims);
    return claims;
  }

  #warn(error: string): void {
    this.#complaints.warn("failed to parse a JWT token", { error });
  }
}

/** Claims of a token with a valid signature. */
interface Claims {
  readonly info: AuthInfo;
  /** Of users and roles; without one, the token has the permissions that its user has at the time. */
  readonly hasRevision: boolean;
  /** Validity period, in wall-clock milliseconds. */
  readonly startMs: number;
  readonly endMs: number;
}

/** The claims, or why the token is not ours. */
function read(options: JwtOptions, { verifyingKeys }: JwtKeys, token: string): Claims | string {
  const [head, body, signature, ...more] = token.split(".");
  if (head === undefined || body === undefined || signature === undefined || more.length > 0)
    return "token is malformed";
  const header = decodeJson(head);
  const claims = decodeJson(body);
  if (header === undefined || claims === undefined || !isBase64Url(signature)) return "token is malformed";
  if (header["alg"] !== options.method.name) return "invalid signing method";
  const [text, bytes] = [`${head}.${body}`, Buffer.from(signature, "base64url")];
  if (!verifyingKeys.some((key) => verify(options, key, text, bytes))) return "signature is invalid";
  const { username, revision, exp = 0, nbf = 0 } = claims;
  if (typeof exp !== "number" || typeof nbf !== "number") return "token has invalid claims";
  if (typeof username !== "string") return "failed to obtain user claims from jwt token";
  const endMs = exp === 0 ? Number.POSITIVE_INFINITY : exp * 1000;
  const times = { startMs: nbf * 1000, endMs };
  if (revision === undefined && options.revisionOptional) {
    if (exp === 0) return "token has neither a revision nor an end";
    return { info: new AuthInfo(username, 0), hasRevision: false, ...times };
  }
  if (typeof revision !== "number") return "failed to obtain revision claims from jwt token";
  return { info: new AuthInfo(username, Math.max(0, Math.trunc(revision))), hasRevision: true, ...times };
}

function sign(method: JwtOptions["method"], signingKey: crypto.KeyObject | Buffer, text: string): Buffer {
  if (method.family === "hmac") return crypto.createHmac(method.hash!, signingKey).update(text).digest();
  const key = { key: signingKey as crypto.KeyObject, ...signatureFormat(method.family) };
  if (method.family === "rsa-pss") {
    return crypto.sign(method.hash, Buffer.from(text), { ...key, saltLength: crypto.constants.RSA_PSS_SALTLEN_DIGEST });
  }
  return crypto.sign(method.hash, Buffer.from(text), key);
}

function verify(
  { method }: JwtOptions,
  verifyingKey: crypto.KeyObject | Buffer,
  text: string,
  signature: Buffer,
): boolean {
  if (method.family === "hmac") {
    const expected = crypto.createHmac(method.hash!, verifyingKey).update(text).digest();
    return expected.length === signature.length && crypto.timingSafeEqual(expected, signature);
  }
  if (method.curve !== undefined && curveOf(verifyingKey) !== method.curve) return false;
  const key = { key: verifyingKey as crypto.KeyObject, ...signatureFormat(method.family) };
  return crypto.verify(method.hash, Buffer.from(text), key, signature);
}

function signatureFormat(family: JwtOptions["method"]["family"]): crypto.SigningOptions {
  if (family === "ec") return { dsaEncoding: "ieee-p1363" };
  if (family !== "rsa-pss") return {};
  return { padding: crypto.constants.RSA_PKCS1_PSS_PADDING, saltLength: crypto.constants.RSA_PSS_SALTLEN_AUTO };
}

function curveOf(key: crypto.KeyObject | Buffer): string | undefined {
  return key instanceof crypto.KeyObject ? key.asymmetricKeyDetails?.namedCurve : undefined;
}

const encodeJson = (value: object): string => Buffer.from(JSON.stringify(value)).toString("base64url");

const isBase64Url = (text: string): boolean => /^[A-Za-z0-9_-]*$/.test(text) && text.length % 4 !== 1;

function decodeJson(text: string): Record<string, unknown> | undefined {
  if (!isBase64Url(text)) return undefined;
  try {
    const value: unknown = JSON.parse(Buffer.from(text, "base64url").toString());
    return typeof value === "object" && value !== null ? (value as Record<string, unknown>) : undefined;
  } catch {
    return undefined;
  }
}
