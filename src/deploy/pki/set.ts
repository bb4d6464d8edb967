/**
 * The certificates of a cluster as a set: what is wanted is compared with what is there, and only what is missing, wrong or
 * near its end is made. Repeating it changes nothing; interrupted, it goes on where it was.
 */
import { type KeyObject, X509Certificate } from "node:crypto";
import { relative } from "node:path";
import { DeployError } from "../common/context.ts";
import { readText, SECRET_MODE, writeWhole } from "../common/files.ts";
import { Authority, firstCertificate, type Now, type Purpose, type Request, signingRequest } from "./authority.ts";
import { namesOf, remarksOn } from "./inspect.ts";
import { type KeyAlgorithm, keyPem, newKey, parseKey, publicDer } from "./keys.ts";
import { authorityPair, clientPair, type Pair, peerPair, requestPath, serverPair, sharedPair } from "./layout.ts";

export interface SetOptions {
  readonly dir: string;
  /** Each member with its addresses and DNS names. */
  readonly members: ReadonlyMap<string, readonly string[]>;
  /** User names: with authentication, a client is the user that its certificate names. */
  readonly clients: readonly string[];
  /** One certificate for all members and both uses, instead of two for each. */
  readonly isShared: boolean;
  readonly algorithm: KeyAlgorithm;
  readonly days: number;
  readonly authorityDays: number;
  /** What ends sooner is renewed. */
  readonly renewDays: number;
  readonly clusterName: string;
  /** An authority elsewhere signs: keys and signing requests are written instead of certificates. */
  readonly signsElsewhere: boolean;
}

export interface Step {
  /** Relative to the directory of the set. */
  readonly file: string;
  readonly action: "kept" | "made" | "renewed" | "requested";
  /** Why it was renewed, or what to do next. */
  readonly why?: string;
}

interface Wanted extends Request {
  readonly pair: Pair;
}

/** Throws DeployError; what was made before stays, and is kept by the next run. */
export async function makeSet(options: SetOptions, now: Now): Promise<Step[]> {
  const wanted = wantedBy(options);
  if (options.signsElsewhere) return Promise.all(wanted.map((each) => request(options, each, now)));
  const { authority, step } = await authorityFor(options, now);
  return [step, ...(await Promise.all(wanted.map((each) => make(options, each, authority, now))))];
}

/**
 * Certificates that another authority has signed, put beside the keys they belong to. Every one must belong to a key
 * of the set and be good for its purpose; otherwise nothing is written. Throws DeployError.
 */
export function importCertificates(
  options: SetOptions,
  authorityPem: string,
  signed: readonly { readonly path: string; readonly pem: string }[],
  now: Now,
): Step[] {
  const wanted = wantedBy(options);
  const authority = new X509Certificate(firstCertificate(authorityPem, "the authority's file"));
  const placed = signed.map(({ path, pem }) => {
    const certificate = new X509Certificate(firstCertificate(pem, path));
    const place = wanted.find(({ pair }) => {
      const text = readText(pair.key);
      return text !== undefined && certificate.checkPrivateKey(parseKey(text, pair.key));
    });
    if (place === undefined) throw new DeployError(`${path} belongs to no key in ${options.dir}`);
    const remarks = remarksOn(certificate, {
      nowMs: now.nowMs,
      warnDays: 0,
      purpose: place.purpose,
      names: place.names,
      // A chain leads to an authority that is not the immediate one.
      ...(pem.split("-----BEGIN CERTIFICATE-----").length > 2 ? {} : { authority }),
    });
    const problem = remarks.find(({ level }) => level === "problem");
    if (problem !== undefined) throw new DeployError(`${path}: ${problem.text}; nothing was changed`);
    return { place, pem };
  });
  writeWhole(authorityPair(options.dir).cert, authorityPem);
  return placed.map(({ place, pem }) => {
    writeWhole(place.pair.cert, pem);
    return { file: relative(options.dir, place.pair.cert), action: "made" };
  });
}

function wantedBy({ dir, members, clients, isShared, days }: SetOptions): Wanted[] {
  const of = (pair: Pair, purpose: Purpose, commonName: string, names: readonly string[]): Wanted => ({
    pair,
    purpose,
    commonName,
    names,
    days,
  });
  const all = [...new Set([...members.values()].flat())];
  const forMembers = isShared
    ? [of(sharedPair(dir), "member", "etcd", all)]
    : [...members].flatMap(([name, names]) => [
        of(serverPair(dir, name), "server", name, names),
        of(peerPair(dir, name), "peer", name, names),
      ]);
  return [...forMembers, ...clients.map((name) => of(clientPair(dir, name), "client", name, []))];
}

async function authorityFor(options: SetOptions, now: Now): Promise<{ authority: Authority; step: Step }> {
  const { cert, key } = authorityPair(options.dir);
  const [certText, keyText] = [readText(cert), readText(key)];
  const file = relative(options.dir, cert);
  if (certText !== undefined && keyText !== undefined) {
    const authority = Authority.parse(certText, cert, keyText, key);
    const problem = remarksOn(authority.certificate, { nowMs: now.nowMs, warnDays: 0 })[0];
    if (problem?.level === "problem")
      throw new DeployError(`${cert}: ${problem.text}: all certificates must be replaced`);
    return { authority, step: { file, action: "kept" } };
  }
  if (certText !== undefined) {
    throw new DeployError(
      `${cert} is there without its key ${key}: put the key there, or let its owner sign (kvorum cert make --csr)`,
    );
  }
  // A key without a certificate is what an interrupted run leaves: nothing was signed with it.
  const authority = await Authority.create(`${options.clusterName} CA`, options.algorithm, options.authorityDays, now);
  writeWhole(key, keyPem(authority.key), SECRET_MODE);
  writeWhole(cert, authority.pem);
  return { authority, step: { file, action: "made" } };
}

async function make(options: SetOptions, wanted: Wanted, authority: Authority, now: Now): Promise<Step> {
  const { pair } = wanted;
  const file = relative(options.dir, pair.cert);
  const there = current(pair);
  const why = there && reasonToRenew(there, wanted, options, authority.certificate, now);
  if (there !== undefined && why === undefined) return { file, action: "kept" };
  const key = await newKey(options.algorithm);
  const pem = await authority.issue(publicDer(key), wanted, now);
  // When this is interrupted in between, key and certificate differ, and the next run makes both again.
  writeWhole(pair.key, keyPem(key), SECRET_MODE);
  writeWhole(pair.cert, pem);
  return why === undefined ? { file, action: "made" } : { file, action: "renewed", why };
}

async function request(options: SetOptions, wanted: Wanted, now: Now): Promise<Step> {
  const { pair } = wanted;
  const there = current(pair);
  if (there !== undefined && reasonToRenew(there, wanted, options, undefined, now) === undefined)
    return { file: relative(options.dir, pair.cert), action: "kept" };
  const text = readText(pair.key);
  const key = text === undefined ? await newKey(options.algorithm) : parseKey(text, pair.key);
  if (text === undefined) writeWhole(pair.key, keyPem(key), SECRET_MODE);
  writeWhole(requestPath(pair), await signingRequest(key, wanted));
  return { file: relative(options.dir, requestPath(pair)), action: "requested" };
}

interface Current {
  readonly certificate: X509Certificate;
  readonly key: KeyObject;
}

/** Undefined unless both are there. */
function current(pair: Pair): Current | undefined {
  const [certText, keyText] = [readText(pair.cert), readText(pair.key)];
  if (certText === undefined || keyText === undefined) return undefined;
  const certificate = new X509Certificate(firstCertificate(certText, pair.cert));
  return { certificate, key: parseKey(keyText, pair.key) };
}

function reasonToRenew(
  { certificate, key }: Current,
  { names, purpose }: Wanted,
  { renewDays }: SetOptions,
  authority: X509Certificate | undefined,
  { nowMs }: Now,
): string | undefined {
  // What ends with its authority would end no later when it is made again.
  const warnDays = authority?.validTo === certificate.validTo ? 0 : renewDays;
  const expected = { nowMs, warnDays, purpose, names, key, ...(authority ? { authority } : {}) };
  const remark = remarksOn(certificate, expected)[0];
  if (remark !== undefined) return remark.text;
  // IPv6 addresses have many forms; one too many does no harm.
  const extra = namesOf(certificate).filter((name) => !name.includes(":") && !names.includes(name));
  return extra.length === 0 ? undefined : `valid for ${extra.join(", ")}, which is not wanted any more`;
}
