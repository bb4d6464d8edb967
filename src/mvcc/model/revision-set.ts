/**
 * A set of revisions, filled in any order and then queried in ascending order: what a compaction or a hash keeps. About
 * 12 bytes per revision: revisions are grouped, and only the group queried last is hashed. A group is small enough to be
 * hashed in a few milliseconds, however many changes a transaction makes.
 */
export class RevisionSet {
  /** By the upper bits of the main revision: the first changes of some transactions. */
  readonly #groups = new Map<number, number[]>();
  /** By the main revision: the changes of a large transaction after these, in parts. */
  readonly #large = new Map<number, number[][]>();
  #size = 0;
  #openGroup = -1;
  #openMain = -1;
  #openPart = -1;
  #group: ReadonlySet<number> = new Set();
  #part: ReadonlySet<number> = new Set();

  get size(): number {
    return this.#size;
  }

  /** Add each revision at most once. */
  add(main: number, sub: number): void {
    this.#size++;
    if (sub >= GROUP_SUBS) return this.#addLarge(main, sub);
    const number = Math.floor(main / GROUP_MAINS);
    let group = this.#groups.get(number);
    if (group === undefined) this.#groups.set(number, (group = []));
    group.push((main % GROUP_MAINS) * GROUP_SUBS + sub);
  }

  #addLarge(main: number, sub: number): void {
    let parts = this.#large.get(main);
    if (parts === undefined) this.#large.set(main, (parts = []));
    const number = Math.floor(sub / PART_SUBS);
    while (parts.length <= number) parts.push([]);
    parts[number]!.push(sub);
  }

  has(main: number, sub: number): boolean {
    if (sub >= GROUP_SUBS) return this.#hasLarge(main, sub);
    const number = Math.floor(main / GROUP_MAINS);
    if (number !== this.#openGroup) {
      this.#openGroup = number;
      this.#group = new Set(this.#groups.get(number));
    }
    return this.#group.has((main % GROUP_MAINS) * GROUP_SUBS + sub);
  }

  #hasLarge(main: number, sub: number): boolean {
    const number = Math.floor(sub / PART_SUBS);
    if (main !== this.#openMain || number !== this.#openPart) {
      this.#openMain = main;
      this.#openPart = number;
      this.#part = new Set(this.#large.get(main)?.[number]);
    }
    return this.#part.has(sub);
  }
}

const GROUP_MAINS = 32;
const GROUP_SUBS = 1024;
const PART_SUBS = 32_768;
