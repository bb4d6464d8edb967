/**
 * Checks a bbolt file as `bbolt check` does: each page belongs to exactly one place, keys are in order, and the
 * freelist names the rest.
 */
import type { BoltBucket } from "./bucket.ts";
import { BoltError } from "./format.ts";
import type { TreePage } from "./page.ts";
import type { BoltReader } from "./reader.ts";

/** Nested buckets, and branch levels, that the check follows. */
const DEPTH_MAX = 64;

/** Pages between two turns of the event loop: about a millisecond. */
const SLICE_PAGES = 100;

/** Yields every problem, as one line of text each. Memory: one byte for each page of the file. */
export function* checkBolt(reader: BoltReader): Generator<string, void, void> {
  for (const step of new Check(reader).run()) if (step !== undefined) yield step;
}

/** The same for a large file: awaits `turn` between slices. Returns the first `problemsMax` problems. */
export async function checkBoltInSlices(
  reader: BoltReader,
  turn: () => Promise<void>,
  problemsMax = 20,
): Promise<readonly string[]> {
  const problems: string[] = [];
  let pages = 0;
  for (const step of new Check(reader).run()) {
    if (step !== undefined && problems.push(step) === problemsMax) break;
    if (step === undefined && ++pages % SLICE_PAGES === 0) await turn();
  }
  return problems;
}

/** One problem, or undefined for one checked page. */
type Step = string | undefined;

const FREE = 1;
const REACHED = 2;

class Check {
  readonly #reader: BoltReader;
  readonly #state: Uint8Array;
  readonly #problems: string[] = [];

  constructor(reader: BoltReader) {
    this.#reader = reader;
    this.#state = new Uint8Array(reader.pageCount);
  }

  *run(): Generator<Step, void, void> {
    this.#state.fill(REACHED, 0, 2);
    this.#attempt(() => this.#freelist());
    yield* this.#drain();
    yield* this.#bucket(this.#reader.root, "", 0);
    // Without a freelist, every unreachable page is free.
    if (this.#reader.meta.freelistPage === undefined) return;
    for (let id = 0; id < this.#state.length; id++) {
      if (this.#state[id] === 0) yield `page ${id}: unreachable unfreed`;
    }
  }

  *#drain(): Generator<string, void, void> {
    yield* this.#problems.splice(0);
  }

  #attempt<T>(action: () => T): T | undefined {
    try {
      return action();
    } catch (error) {
      if (!(error instanceof BoltError)) throw error;
      this.#problems.push(error.message);
      return undefined;
    }
  }

  #freelist(): void {
    const freelist = this.#reader.freelist();
    const start = this.#reader.meta.freelistPage;
    if (freelist === undefined || start === undefined) return;
    this.#state.fill(REACHED, start, start + freelist.span);
    for (const id of freelist.ids) {
      if (!(id >= 2 && id < this.#state.length)) this.#problems.push(`page ${id}: free, but out of bounds`);
      else if (this.#state[id] === FREE) this.#problems.push(`page ${id}: already freed`);
      else this.#state[id] = FREE;
    }
  }

  *#bucket(bucket: BoltBucket, name: string, nesting: number): Generator<Step, void, void> {
    if (nesting > DEPTH_MAX) {
      yield `buckets nest deeper than ${DEPTH_MAX} levels`;
      return;
    }
    // An inline bucket is part of its parent's page, which was checked. It contains no buckets.
    if (bucket.rootPage === 0) return;
    const nested: Buffer[] = [];
    for (const step of this.#tree(bucket.rootPage, undefined, undefined, 0, { key: undefined }, nested)) {
      yield step === undefined || name === "" ? step : `bucket "${name}": ${step}`;
    }
    for (const key of nested) {
      const child = this.#attempt(() => bucket.bucket(key));
      yield* this.#drain();
      const path = name === "" ? key.toString("latin1") : `${name}/${key.toString("latin1")}`;
      if (child !== undefined) yield* this.#bucket(child, path, nesting + 1);
    }
  }

  /**
   * Checks the pages under `id`, whose keys must lie in [low, high) and above `highest`, which it advances. Adds the
   * keys of nested buckets to `nested`.
   */
  *#tree(
    id: number,
    low: Buffer | undefined,
    high: Buffer | undefined,
    depth: number,
    highest: { key: Buffer | undefined },
    nested: Buffer[],
  ): Generator<Step, void, void> {
    const page = this.#attempt(() => this.#reader.page(id));
    yield* this.#drain();
    yield undefined;
    if (page === undefined) return;
    const isClaimed = this.#claim(page);
    yield* this.#drain();
    if (!isClaimed || depth > DEPTH_MAX) return;
    if (page.count > 0) {
      const first = page.key(0);
      if (low !== undefined && low.compare(first) > 0) yield `page ${id}: its first key is below its parent's`;
      if (highest.key !== undefined && page.isLeaf && highest.key.compare(first) >= 0) {
        yield `page ${id}: its first key is not above the last of the leaf before it`;
      }
      if (high !== undefined && high.compare(page.key(page.count - 1)) <= 0) {
        yield `page ${id}: its last key is not below the next key of its parent`;
      }
    }
    if (page.isLeaf) {
      if (page.count > 0) highest.key = page.key(page.count - 1);
      for (let i = 0; i < page.count; i++) if (page.isBucket(i)) nested.push(page.key(i));
      return;
    }
    for (let i = 0; i < page.count; i++) {
      const next = i + 1 < page.count ? page.key(i + 1) : high;
      yield* this.#tree(page.child(i), page.key(i), next, depth + 1, highest, nested);
    }
  }

  /** Marks the page as claimed; false when it already was. */
  #claim(page: TreePage): boolean {
    let free = true;
    for (let id = page.id; id < page.id + page.span; id++) {
      if (this.#state[id] === REACHED) {
        this.#problems.push(`page ${id}: multiple references`);
        free = false;
      } else if (this.#state[id] === FREE) this.#problems.push(`page ${id}: reachable freed`);
      this.#state[id] = REACHED;
    }
    return free;
  }
}
