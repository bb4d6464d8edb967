/**
 * The shape of a bbolt file: sizes, flags, the meta page and its checksum, and the error that reports damage.
 *
 * A file is a row of pages. Pages 0 and 1 are metas, of which the one with the higher transaction id is valid. Every
 * page starts with a header of 16 bytes: page id (u64), flags (u16), element count (u16), overflow (u32, how many
 * further pages this one spans). Branch and leaf pages then hold one element of 16 bytes for each entry, and the keys
 * and values after them. All integers are little-endian. Source: go.etcd.io/bbolt v1.5.0, internal/common.
 */
import { KvorumError } from "../base/errors.ts";

export const PAGE_SIZE = 4096;
export const PAGE_HEADER_BYTES = 16;
export const ELEMENT_BYTES = 16;
export const BUCKET_HEADER_BYTES = 16;
export const META_BYTES = 64;

export const BRANCH_PAGE = 0x01;
export const LEAF_PAGE = 0x02;
const META_PAGE = 0x04;
export const FREELIST_PAGE = 0x10;
/** Flag of a leaf element whose value is a bucket. */
export const BUCKET_ELEMENT = 0x01;

/** Branch levels, and nested buckets, that are followed. A tree of the largest file that could exist needs fewer than 20. */
export const DEPTH_MAX = 64;
export const KEY_BYTES_MAX = 32768;
export const VALUE_BYTES_MAX = 2 ** 31 - 2;

const MAGIC = 0xed0cdaed;
const VERSION = 2;
const NO_FREELIST = 0xffffffffffffffffn;
const TWO_32 = 2 ** 32;

/** One key and its value. A reader returns views that stay valid. */
export interface BoltEntry {
  readonly key: Uint8Array;
  readonly value: Uint8Array;
}

export interface BoltMeta {
  readonly pageSize: number;
  /** Page of the root bucket, whose entries are the buckets. */
  readonly rootPage: number;
  /** Absent when the file has no freelist. */
  readonly freelistPage: number | undefined;
  /** The high water mark: pages that the file has. */
  readonly pageCount: number;
  readonly txid: number;
}

/**
 * - `not-bolt`: neither meta page is one of a bbolt file
 * - `version`: a bbolt file of an unknown version
 * - `damaged`: the bytes contradict the format
 * - `limit`: well-formed, but larger than the reader's limit
 * - `hash-missing`, `hash-mismatch`: the sha256 at the end of a snapshot file
 */
export type BoltErrorCode = "not-bolt" | "version" | "damaged" | "limit" | "hash-missing" | "hash-mismatch";

/** A bbolt file that cannot be used. `page` is set when one page is damaged. */
export class BoltError extends KvorumError {
  override name = "BoltError";
  readonly code: BoltErrorCode;
  readonly file: string;
  readonly page: number | undefined;

  constructor(code: BoltErrorCode, file: string, page: number | undefined, problem: string) {
    super(page === undefined ? `${file}: ${problem}` : `${file}: page ${page}: ${problem}`);
    this.code = code;
    this.file = file;
    this.page = page;
  }
}

/**
 * Whether a leaf of `count` rows ends before a row with which it would have `sizeBytes` bytes. A row that has a leaf to
 * itself wastes half a page on average, so a second one joins it, as in bbolt; but not a large one, since a leaf is read
 * as a whole.
 */
export function isFullLeaf(count: number, sizeBytes: number, splitBytes: number): boolean {
  return sizeBytes > splitBytes && (count > 1 || (count === 1 && sizeBytes > PAIR_BYTES_MAX));
}

const PAIR_BYTES_MAX = 32 * 1024;

/** Writes a page header at `at`. */
export function writePageHeader(
  out: Buffer,
  at: number,
  id: number,
  flags: number,
  count: number,
  overflow: number,
): void {
  writeUint64(out, at, id);
  out.writeUInt16LE(flags, at + 8);
  out.writeUInt16LE(count, at + 10);
  out.writeUInt32LE(overflow, at + 12);
}

/** Writes meta page `id` (0 or 1) at `at`; the caller clears the page's other bytes. */
export function writeMetaPage(out: Buffer, at: number, id: 0 | 1, meta: BoltMeta): void {
  writePageHeader(out, at, id, META_PAGE, 0, 0);
  const body = at + PAGE_HEADER_BYTES;
  out.writeUInt32LE(MAGIC, body);
  out.writeUInt32LE(VERSION, body + 4);
  out.writeUInt32LE(meta.pageSize, body + 8);
  out.writeUInt32LE(0, body + 12);
  writeUint64(out, body + 16, meta.rootPage);
  writeUint64(out, body + 24, 0);
  if (meta.freelistPage === undefined) out.writeBigUInt64LE(NO_FREELIST, body + 32);
  else writeUint64(out, body + 32, meta.freelistPage);
  writeUint64(out, body + 40, meta.pageCount);
  writeUint64(out, body + 48, meta.txid);
  out.writeBigUInt64LE(fnv1a64(out.subarray(body, body + META_BYTES - 8)), body + 56);
}

export type MetaProblem = "not-bolt" | "version" | "checksum" | "values";

/** Reads the meta in `page`, which holds at least header and meta. Returns what is wrong with it, if anything. */
export function readMetaPage(page: Buffer): BoltMeta | MetaProblem {
  const body = page.subarray(PAGE_HEADER_BYTES, PAGE_HEADER_BYTES + META_BYTES);
  if (body.length < META_BYTES || body.readUInt32LE(0) !== MAGIC) return "not-bolt";
  if (body.readUInt32LE(4) !== VERSION) return "version";
  if (body.readBigUInt64LE(56) !== fnv1a64(body.subarray(0, META_BYTES - 8))) return "checksum";
  const pageSize = body.readUInt32LE(8);
  const rootPage = readUint64(body, 16);
  const freelist = body.readBigUInt64LE(32) === NO_FREELIST ? undefined : readUint64(body, 32);
  const pageCount = readUint64(body, 40);
  const txid = readUint64(body, 48);
  if (pageSize < 1024 || pageSize > 2 ** 24 || (pageSize & (pageSize - 1)) !== 0) return "values";
  if (!Number.isSafeInteger(pageCount) || !Number.isSafeInteger(txid)) return "values";
  if (!(rootPage >= 2 && rootPage < pageCount)) return "values";
  if (freelist !== undefined && !(freelist >= 2 && freelist < pageCount)) return "values";
  return { pageSize, rootPage, freelistPage: freelist, pageCount, txid };
}

export function writeUint64(out: Buffer, at: number, value: number): void {
  const high = Math.floor(value / TWO_32);
  out.writeUInt32LE(value - high * TWO_32, at);
  out.writeUInt32LE(high, at + 4);
}

/** Exact below 2^53; a larger value is only good for being rejected. */
export function readUint64(bytes: Buffer, at: number): number {
  return bytes.readUInt32LE(at + 4) * TWO_32 + bytes.readUInt32LE(at);
}

/** Source: http://www.isthe.com/chongo/tech/comp/fnv/ */
function fnv1a64(bytes: Uint8Array): bigint {
  let hash = 0xcbf29ce484222325n;
  for (const byte of bytes) hash = BigInt.asUintN(64, (hash ^ BigInt(byte)) * 0x100000001b3n);
  return hash;
}
