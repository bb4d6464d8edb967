/** A set of voters that decides by majority. */

/** The index each voter has acknowledged; undefined when it has not reported. */
export interface AckedIndexer {
  ackedIndex(id: bigint): number | undefined;
}

export type VoteResult = "VotePending" | "VoteLost" | "VoteWon";

/** Above every index: the committed index of an empty configuration, so that it never holds a joint one back. */
export const INDEX_MAX = Number.POSITIVE_INFINITY;

/** Reused between calls, which never nest, so that finding the committed index allocates nothing. */
const scratch: number[] = [];

export class MajorityConfig {
  readonly ids: Set<bigint>;

  constructor(ids: Iterable<bigint> = []) {
    this.ids = new Set(ids);
  }

  get size(): number {
    return this.ids.size;
  }

  has(id: bigint): boolean {
    return this.ids.has(id);
  }

  /** The ids in rising order. */
  sorted(): bigint[] {
    return sortedIds(this.ids);
  }

  /** The largest index that a majority has acknowledged. */
  committedIndex(acked: AckedIndexer): number {
    const voters = this.ids.size;
    if (voters === 0) return INDEX_MAX;
    let count = 0;
    for (const id of this.ids) {
      // Insertion sort in falling order: voters are few.
      const index = acked.ackedIndex(id) ?? 0;
      let at = count++;
      while (at > 0 && scratch[at - 1]! < index) {
        scratch[at] = scratch[at - 1]!;
        at--;
      }
      scratch[at] = index;
    }
    return scratch[voters >>> 1]!;
  }

  /** An election in an empty configuration is won, so that it never holds a joint one back. */
  voteResult(votes: ReadonlyMap<bigint, boolean>): VoteResult {
    const count = this.ids.size;
    if (count === 0) return "VoteWon";
    let granted = 0;
    let missing = 0;
    for (const id of this.ids) {
      const vote = votes.get(id);
      if (vote === undefined) missing++;
      else if (vote) granted++;
    }
    const quorum = (count >>> 1) + 1;
    if (granted >= quorum) return "VoteWon";
    return granted + missing >= quorum ? "VotePending" : "VoteLost";
  }

  toString(): string {
    return idsToString(this.ids);
  }
}

export function sortedIds(ids: Iterable<bigint>): bigint[] {
  return [...ids].sort((a, b) => (a < b ? -1 : a > b ? 1 : 0));
}

/** `(1 2 a)`: hexadecimal, in rising order. */
export function idsToString(ids: Iterable<bigint>): string {
  return `(${sortedIds(ids)
    .map((id) => id.toString(16))
    .join(" ")})`;
}

/** A drawing of each voter's acknowledged index, one line each, with a bar as long as its rank. */
export function describeAcked(ids: Iterable<bigint>, acked: AckedIndexer): string {
  const voters = sortedIds(ids).map((id) => ({ id, index: acked.ackedIndex(id), bar: 0 }));
  const width = voters.length;
  if (width === 0) return "<empty majority quorum>";
  const ranked = [...voters].sort((a, b) => (a.index ?? 0) - (b.index ?? 0));
  for (let rank = 1; rank < width; rank++) {
    const [below, voter] = [ranked[rank - 1]!, ranked[rank]!];
    voter.bar = (below.index ?? 0) < (voter.index ?? 0) ? rank : below.bar;
  }
  const lines = voters.map(({ id, index, bar }) => {
    const drawn = index === undefined ? `?${" ".repeat(width)}` : `${"x".repeat(bar)}>${" ".repeat(width - bar)}`;
    return `${drawn} ${String(index ?? 0).padStart(5)}    (id=${id.toString(16)})\n`;
  });
  return `${" ".repeat(width)}    idx\n${lines.join("")}`;
}
