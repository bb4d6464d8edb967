/** Sizes of entries, in bytes, for the limits on messages, on applying and on the uncommitted tail. */
import type { Entry } from "../proto/raftpb.ts";

/** No limit. */
export const NO_LIMIT = Number.MAX_SAFE_INTEGER;

/** Size of an entry on the wire; a normal entry's type is its default and takes no room. */
export function entrySize(entry: Entry): number {
  const { length } = entry.data;
  let size = 2 + varintSize(entry.term) + varintSize(entry.index);
  if (entry.type !== 0) size += 2;
  if (length > 0) size += 1 + varintSize(length) + length;
  return size;
}

export function entriesSize(entries: readonly Entry[]): number {
  let size = 0;
  for (let i = 0; i < entries.length; i++) size += entrySize(entries[i]!);
  return size;
}

/** Payload bytes only: an empty entry, as a new leader appends, counts 0 and so is never refused for its size. */
export function payloadsSize(entries: readonly Entry[]): number {
  let size = 0;
  for (let i = 0; i < entries.length; i++) size += entries[i]!.data.length;
  return size;
}

function varintSize(value: number): number {
  if (value < 0x80) return 1;
  if (value < 0x4000) return 2;
  if (value < 0x20_0000) return 3;
  if (value < 0x1000_0000) return 4;
  let size = 4;
  for (let rest = Math.floor(value / 0x1000_0000); rest > 0; rest = Math.floor(rest / 128)) size++;
  return size;
}
