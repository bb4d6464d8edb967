/**
 * Damage to the pages of a database. bbolt's format has a checksum for its meta pages only, so not all damage can be
 * noticed: only such is done here that must be reported by name, that changes nothing, or that leaves the state before
 * the last commit. A changed key or value is the drill's (drill.ts).
 */
import { BoltError } from "../../src/bolt/format.ts";
import { PageFile } from "../../src/bolt/page-file.ts";
import { usedBytes } from "../../src/bolt/raw-page.ts";
import { findReachable } from "../../src/bolt/reachable.ts";
import { BoltReader } from "../../src/bolt/reader.ts";
import { BUCKETS } from "../../src/mvcc/backend/backend.ts";
import { databaseProblems } from "./database.ts";
import type { SimDisk } from "./disk.ts";
import type { SimRandom } from "./random.ts";

/**
 * - `reported`: a member that reads the page must say so
 * - `older`: the newest meta page is not valid any more: the state before it counts
 * - `unclear`: the same can still be read; what checks more than a reader may report it
 * - `none`: no byte that counts was changed
 */
export type Effect = "reported" | "older" | "unclear" | "none";

export interface PageDamage {
  readonly offset: number;
  readonly before: Buffer;
  readonly after: Buffer;
  readonly effect: Effect;
}

const TRIES = 20;
const SECTOR_BYTES = 512;
const META_CHANCE = 0.15;
const NUMBER_CHANCE = 0.1;
const DENSE_BYTES = 128;
const NUMBER_BYTES = 8;

/** Damages a page of the newest state, or a meta page; undefined when nothing suitable was met. */
export function damagePage(
  disk: SimDisk,
  path: string,
  random: SimRandom,
  how: "bit" | "byte" | "sector" | "zeros",
): PageDamage | undefined {
  if (!disk.exists(path)) return undefined;
  const content = disk.contentOf(path);
  const undamaged = stateOf(disk, path);
  if (undamaged === undefined) return undefined;
  const { pageSize, pages } = undamaged;
  for (let tries = 0; tries < TRIES; tries++) {
    const page = random.chance(META_CHANCE) ? random.below(2) : random.pick(pages);
    // Headers and elements are first, and a page's own number before them; most pages are not full.
    const from = random.chance(NUMBER_CHANCE) ? NUMBER_BYTES : random.chance(0.7) ? DENSE_BYTES : pageSize;
    const at = page * pageSize + random.below(from);
    const isSector = how === "sector" || how === "zeros";
    const offset = isSector ? at - (at % SECTOR_BYTES) : at;
    const before = Buffer.from(content.subarray(offset, offset + (isSector ? SECTOR_BYTES : 1)));
    const after = Buffer.from(before);
    for (const [i, byte] of before.entries()) {
      if (how === "zeros") after[i] = 0;
      else after[i] = byte ^ (how === "bit" ? 1 << random.below(8) : 1 + random.below(255));
    }
    if (after.equals(before)) continue;
    disk.patch(path, offset, after);
    const isHead = undamaged.heads.has(page);
    const isNamed = isHead && isMisplaced(disk, path, page, pageSize);
    const effect = isNamed ? "reported" : effectOf(disk, path, undamaged, offset);
    if (effect !== undefined) return { offset, before, after, effect };
    disk.patch(path, offset, before);
  }
  return undefined;
}

/** Whether a page has another page's number: it may be that page, misplaced. Read without the engine, which must notice. */
function isMisplaced(disk: SimDisk, path: string, page: number, pageSize: number): boolean {
  return disk.contentOf(path).readBigUInt64LE(page * pageSize) !== BigInt(page);
}

interface State {
  readonly txid: number;
  readonly pageSize: number;
  /** Pages that it consists of, but for the meta pages. */
  readonly pages: readonly number[];
  /** Those of them that begin with a page's header: the others continue a large one. */
  readonly heads: ReadonlySet<number>;
  readonly rows: Buffer;
  /** Whether the byte there belongs to an entry, or says where they are. */
  isUsed(offset: number): boolean;
}

function effectOf(disk: SimDisk, path: string, undamaged: State, offset: number): Effect | undefined {
  const damaged = stateOf(disk, path);
  if (damaged === undefined) return "reported";
  // While a commit is in progress, its pages may have replaced those of the state before.
  if (damaged.txid !== undamaged.txid) return disk.isDurable(path) ? "older" : undefined;
  if (!damaged.rows.equals(undamaged.rows) || databaseProblems(disk, path).length > 0) return undefined;
  return undamaged.isUsed(offset) ? "unclear" : "none";
}

/** Undefined when something is wrong with it. */
function stateOf(disk: SimDisk, path: string): State | undefined {
  let reader: BoltReader | undefined;
  try {
    reader = new BoltReader({ disk, path });
    const { meta } = reader;
    const rows: Uint8Array[] = [];
    for (const name of BUCKETS) {
      rows.push(Buffer.from(`/${name}`));
      for (const { key, value } of reader.bucket(Buffer.from(name))?.entries() ?? []) {
        rows.push(Buffer.from(`/${key.length}/${value.length}/`), key, value);
      }
    }
    const file = new PageFile(disk.open(path, "r"), meta.pageSize);
    file.pageCount = meta.pageCount;
    const pages = [...findReachable(file, meta).entries()].flatMap(([id, used]) => (used === 1 && id > 1 ? id : []));
    const heads = new Set<number>();
    const ends: { readonly from: number; readonly to: number }[] = [];
    for (let i = 0; i < pages.length; ) {
      const { bytes, span } = file.read(pages[i]!);
      heads.add(pages[i]!);
      const from = pages[i]! * meta.pageSize;
      ends.push({ from, to: from + usedBytes(bytes, 0) });
      i += span;
    }
    return {
      txid: meta.txid,
      pageSize: meta.pageSize,
      pages,
      heads,
      rows: Buffer.concat(rows),
      isUsed: (offset) => ends.some(({ from, to }) => offset >= from && offset < to),
    };
  } catch (error) {
    if (error instanceof BoltError) return undefined;
    throw error;
  } finally {
    reader?.close();
  }
}
