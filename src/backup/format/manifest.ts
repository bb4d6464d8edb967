/**
 * What describes the objects of a repository. Each object has a manifest: a line of JSON and the SHA-256 of that line. It
 * names the digest of the manifest before it, so that a missing, foreign or changed one shows. `head.json` names first and
 * last. docs/backup.md describes all of it for readers without this program.
 */
import { createHash } from "node:crypto";
import { damaged } from "../error.ts";

export const FORMAT = 1;
export const HEAD = "head.json";
export const VERIFIED = "verified.json";
export const MANIFEST_BYTES_MAX = 64 * 1024;

/** A full snapshot, the changes after a revision, or revisions that are lost. */
export type ObjectKind = "full" | "delta" | "hole";

/** The stored bytes of a full snapshot or a delta. */
export interface StoredData {
  readonly name: string;
  readonly sizeBytes: number;
  /** Of the stored bytes, so that it can be checked without a key. */
  readonly sha256: string;
  /** Before compression and encryption. */
  readonly plainBytes: number;
  readonly isEncrypted: boolean;
}

/** HashKV, as a member reported it. */
export interface RecordedHash {
  readonly revision: number;
  readonly compactRevision: number;
  readonly hash: number;
}

export interface Manifest {
  readonly format: number;
  /** The same for all objects of a repository. */
  readonly repository: string;
  /** From 1, without a gap. */
  readonly number: number;
  /** Digest of the manifest before; empty for the first. */
  readonly previous: string;
  readonly kind: ObjectKind;
  /** Grows when the revisions before and after do not belong together: after a hole, or for another cluster. */
  readonly history: number;
  readonly clusterId: string;
  /** delta and hole: the revision before the first; full: the oldest revision that it can be brought back to. */
  readonly from: number;
  /** The last revision. */
  readonly to: number;
  readonly events: number;
  /** Milliseconds since 1970, when the first and the last of it was received. */
  readonly startedMs: number;
  readonly endedMs: number;
  readonly data?: StoredData;
  readonly hash?: RecordedHash;
  /** Why there is a hole, or a new history. */
  readonly reason?: string;
}

/** A manifest with the digest that the next one names. */
export interface Sealed {
  readonly manifest: Manifest;
  readonly digest: string;
}

export interface Head {
  readonly format: number;
  readonly repository: string;
  /** The oldest object kept; those before it were removed by retention. */
  readonly first: number;
  readonly last: number;
  readonly lastDigest: string;
  /** Until then, in milliseconds since 1970, nothing more had happened. */
  readonly seenMs: number;
}

/** When which full snapshot, and the changes on it, were last brought back and compared. */
export interface Verification {
  readonly full: number;
  readonly revision: number;
  readonly atMs: number;
}

export const nameOfManifest = (number: number): string => `${String(number).padStart(10, "0")}.json`;

/** The number in the name of a manifest or of data; undefined for other objects. */
export function numberIn(name: string): number | undefined {
  const digits = /^(\d{10})[.-]/.exec(name)?.[1];
  return digits === undefined ? undefined : Number(digits);
}

export function sealed(value: Manifest | Head): { readonly bytes: Buffer; readonly digest: string } {
  const line = JSON.stringify(value);
  const digest = createHash("sha256").update(line).digest("hex");
  return { bytes: Buffer.from(`${line}\n${digest}\n`), digest };
}

/** Throws BackupError. */
export function readManifest(name: string, number: number, bytes: Buffer): Sealed {
  const { value, digest } = unsealed(name, bytes);
  const manifest = checked(name, value);
  if (manifest.number !== number) throw damaged(name, `is the manifest of object ${manifest.number}: it was swapped`);
  return { manifest, digest };
}

/** Throws BackupError. */
export function readHead(bytes: Buffer): Head {
  const { value } = unsealed(HEAD, bytes);
  const { format, repository, first, last, lastDigest, seenMs } = value;
  checkFormat(HEAD, format);
  if (!isText(repository) || !isWhole(first) || !isWhole(last) || !isText(lastDigest) || !isWhole(seenMs)) {
    throw damaged(HEAD, "lacks a field");
  }
  return { format: FORMAT, repository, first, last, lastDigest, seenMs };
}

type Fields = Readonly<Record<string, unknown>>;

function unsealed(name: string, bytes: Buffer): { readonly value: Fields; readonly digest: string } {
  const [line = "", digest = "", end, more] = bytes.toString("utf8").split("\n");
  if (end !== "" || more !== undefined) throw damaged(name, "is cut off, or has something behind it");
  if (createHash("sha256").update(line).digest("hex") !== digest) throw damaged(name, "is not what its digest says");
  try {
    return { value: fieldsOf(JSON.parse(line)), digest };
  } catch (cause) {
    throw damaged(name, "is not JSON", { cause });
  }
}

function checked(name: string, value: Fields): Manifest {
  const { repository, number, previous, kind, history, clusterId, from, to, events, startedMs, endedMs } = value;
  checkFormat(name, value["format"]);
  if (
    !isText(repository) ||
    !isWhole(number) ||
    !isText(previous) ||
    !isKind(kind) ||
    !isWhole(history) ||
    !isText(clusterId) ||
    !isWhole(from) ||
    !isWhole(to) ||
    !isWhole(events) ||
    !isWhole(startedMs) ||
    !isWhole(endedMs)
  ) {
    throw damaged(name, "lacks a field");
  }
  const { data, hash, reason } = value;
  const times = { startedMs, endedMs };
  return {
    ...{ format: FORMAT, repository, number, previous, kind, history, clusterId, from, to, events, ...times },
    ...(data === undefined ? {} : { data: dataOf(name, fieldsOf(data)) }),
    ...(hash === undefined ? {} : { hash: hashOf(name, fieldsOf(hash)) }),
    ...(isText(reason) ? { reason } : {}),
  };
}

function dataOf(manifest: string, value: Fields): StoredData {
  const { name, sizeBytes, sha256, plainBytes, isEncrypted } = value;
  if (!isText(name) || !isWhole(sizeBytes) || !isText(sha256) || !isWhole(plainBytes)) {
    throw damaged(manifest, "lacks a field of its data");
  }
  return { name, sizeBytes, sha256, plainBytes, isEncrypted: isEncrypted === true };
}

function hashOf(manifest: string, value: Fields): RecordedHash {
  const { revision, compactRevision, hash } = value;
  if (!isWhole(revision) || typeof compactRevision !== "number" || !isWhole(hash)) {
    throw damaged(manifest, "lacks a field of its hash");
  }
  return { revision, compactRevision, hash };
}

function checkFormat(name: string, format: unknown): void {
  if (format !== FORMAT) throw damaged(name, `has format ${String(format)}, this program knows ${FORMAT}`);
}

const fieldsOf = (value: unknown): Fields => (typeof value === "object" && value !== null ? { ...value } : {});
const isText = (value: unknown): value is string => typeof value === "string";
const isWhole = (value: unknown): value is number => Number.isSafeInteger(value) && Number(value) >= 0;
const isKind = (value: unknown): value is ObjectKind => value === "full" || value === "delta" || value === "hole";
