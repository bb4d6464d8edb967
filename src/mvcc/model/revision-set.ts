/**
 * A set of revisions, filled in any order and then queried in ascending order: what a compaction or a hash keeps. About
 * 8 bytes per revision: revisions are grouped by their upper bits, and only the last queried group is hashed.
 */
export class RevisionSet {
  readonly #groups = new Map<number, number[]>();
  #size = 0;
  #open = -1;
  #openSet: ReadonlySet<number> = new Set();

  get size(): number {
    return this.#size;
  }

  /** Add each revision at most once. */
  add(main: number, sub: number): void {
    const number = Math.floor(main / GROUP_LENGTH);
    let group = this.#groups.get(number);
    if (group === undefined) this.#groups.set(number, (group = []));
    group.push((main % GROUP_LENGTH) + sub * GROUP_LENGTH);
    this.#size++;
  }

  has(main: number, sub: number): boolean {
    const number = Math.floor(main / GROUP_LENGTH);
    if (number !== this.#open) {
      this.#open = number;
      this.#openSet = new Set(this.#groups.get(number));
    }
    return this.#openSet.has((main % GROUP_LENGTH) + sub * GROUP_LENGTH);
  }
}

const GROUP_LENGTH = 8192;
