/** What a certificate says, and what is wrong with it for a purpose: the one judgement that making and showing share. */
import type { KeyObject, X509Certificate } from "node:crypto";
import { isIP } from "node:net";
import { DAY_MS, type Purpose } from "./authority.ts";
import { describeKey } from "./keys.ts";

export interface Remark {
  /** With a problem a handshake fails, or soon will. */
  readonly level: "warning" | "problem";
  readonly text: string;
}

export interface Expected {
  readonly nowMs: number;
  /** Days before the end from which on it is a warning. */
  readonly warnDays: number;
  readonly purpose?: Purpose;
  /** Names that it must be valid for. */
  readonly names?: readonly string[];
  readonly key?: KeyObject;
  readonly authority?: X509Certificate;
}

const SERVER_AUTH = "1.3.6.1.5.5.7.3.1";
const CLIENT_AUTH = "1.3.6.1.5.5.7.3.2";
const RSA_BITS_MIN = 2048;

/** Worst first within each subject; empty when all is well. */
export function remarksOn(certificate: X509Certificate, expected: Expected): Remark[] {
  const problems: string[] = [];
  const warnings: string[] = [];
  const { nowMs, warnDays, key, authority } = expected;
  const [fromMs, untilMs] = [Date.parse(certificate.validFrom), Date.parse(certificate.validTo)];
  const days = daysLeft(certificate, nowMs);
  if (untilMs <= nowMs) problems.push(`expired on ${day(untilMs)}`);
  else if (days < warnDays) warnings.push(`expires on ${day(untilMs)}, in ${days} ${days === 1 ? "day" : "days"}`);
  if (fromMs > nowMs) problems.push(`not valid before ${new Date(fromMs).toISOString()}; is this clock right?`);
  if (key !== undefined && !certificate.checkPrivateKey(key)) problems.push("the key beside it is another one's");
  if (authority !== undefined && !isSignedBy(certificate, authority))
    problems.push(`not signed by the authority ${oneLine(authority.subject)}`);
  const missing = (expected.names ?? []).filter((name) => !covers(certificate, name));
  if (missing.length > 0) problems.push(`not valid for ${missing.join(", ")}`);
  problems.push(...missingUsages(certificate, expected.purpose));
  const { asymmetricKeyType: type, asymmetricKeyDetails: details } = certificate.publicKey;
  if (type === "rsa" && (details?.modulusLength ?? 0) < RSA_BITS_MIN)
    warnings.push(`its key is ${describeKey(certificate.publicKey)}, too short; use ${RSA_BITS_MIN} bits or more`);
  if (!certificate.ca && expected.purpose !== "client" && namesOf(certificate).length === 0)
    warnings.push("has no subject alternative names: clients look at nothing else");
  return [
    ...problems.map((text): Remark => ({ level: "problem", text })),
    ...warnings.map((text): Remark => ({ level: "warning", text })),
  ];
}

/** Whole days until the end; negative when it is over. */
export const daysLeft = (certificate: X509Certificate, nowMs: number): number =>
  Math.floor((Date.parse(certificate.validTo) - nowMs) / DAY_MS);

const covers = (certificate: X509Certificate, name: string): boolean =>
  (isIP(name) === 0 ? certificate.checkHost(name, { subject: "never" }) : certificate.checkIP(name)) !== undefined;

/** Addresses and DNS names. */
export const namesOf = (certificate: X509Certificate): string[] =>
  (certificate.subjectAltName ?? "").split(", ").flatMap((name) => /^(?:DNS|IP Address):(.*)$/.exec(name)?.[1] ?? []);

export function usagesOf(certificate: X509Certificate): string[] {
  const usages: readonly string[] = certificate.keyUsage ?? [];
  return [
    ...(certificate.ca ? ["authority"] : []),
    ...(usages.includes(SERVER_AUTH) ? ["server"] : []),
    ...(usages.includes(CLIENT_AUTH) ? ["client"] : []),
  ];
}

export const oneLine = (subject: string): string => subject.replaceAll("\n", ", ");

const day = (ms: number): string => new Date(ms).toISOString().slice(0, 10);

function isSignedBy(certificate: X509Certificate, authority: X509Certificate): boolean {
  return certificate.checkIssued(authority) && certificate.verify(authority.publicKey);
}

function missingUsages(certificate: X509Certificate, purpose: Purpose | undefined): string[] {
  const usages: readonly string[] | undefined = certificate.keyUsage;
  // A certificate without the extension is for everything.
  if (purpose === undefined || usages === undefined) return [];
  const wanted: (readonly [string, string])[] = [[CLIENT_AUTH, "clients"]];
  if (purpose !== "client") wanted.push([SERVER_AUTH, "servers"]);
  const missing = wanted.filter(([oid]) => !usages.includes(oid)).map(([, what]) => what);
  return missing.length === 0 ? [] : [`not for use by ${missing.join(" and ")} (extended key usage)`];
}
