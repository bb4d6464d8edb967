/**
 * Sorts as Go's `sort.Sort` does, including the order of equal elements: members that store the result of such a sort
 * must all store the same. Pattern-defeating quicksort (https://arxiv.org/abs/2106.05123) with the choices of Go 1.19
 * and later.
 */
export function goSort<T>(items: T[], isLess: (a: T, b: T) => boolean): void {
  if (items.length > 1) new PatternSort(items, isLess).sort(0, items.length, bitLength(items.length));
}

const INSERTION_MAX = 12;
/** From this length on, the pivot is the median of medians, and single misplaced elements are moved. */
const LONG = 50;
const MEDIAN_MIN = 8;
const SHIFTS_MAX = 5;
/** So many swaps during the pivot search mean that the elements descend. */
const SWAPS_MAX = 12;

class PatternSort<T> {
  readonly #items: T[];
  readonly #isLess: (a: T, b: T) => boolean;
  /** Exchanges that the search for a pivot needed. */
  #swaps = 0;

  constructor(items: T[], isLess: (a: T, b: T) => boolean) {
    this.#items = items;
    this.#isLess = isLess;
  }

  /** Sorts `[start .. end)`. After `patience` bad pivots it uses a heap. */
  sort(start: number, end: number, patience: number): void {
    let wasBalanced = true;
    let wasPartitioned = true;
    while (end - start > INSERTION_MAX) {
      const length = end - start;
      if (patience === 0) return this.#heapSort(start, end);
      if (!wasBalanced) {
        this.#scatter(start, end);
        patience--;
      }
      let pivot = this.#choosePivot(start, end);
      let ascends = this.#swaps === 0;
      if (this.#swaps === SWAPS_MAX) {
        this.#reverse(start, end);
        pivot = end - 1 - (pivot - start);
        ascends = true;
      }
      if (wasBalanced && wasPartitioned && ascends && this.#isNearlySorted(start, end)) return;
      if (start > 0 && !this.#less(start - 1, pivot)) {
        start = this.#partitionEqual(start, end, pivot);
        continue;
      }
      const { middle, untouched } = this.#partition(start, end, pivot);
      wasPartitioned = untouched;
      const left = middle - start;
      const right = end - middle;
      wasBalanced = Math.min(left, right) >= Math.floor(length / 8);
      if (left < right) {
        this.sort(start, middle, patience);
        start = middle + 1;
      } else {
        this.sort(middle + 1, end, patience);
        end = middle;
      }
    }
    this.#insertionSort(start, end);
  }

  #less(i: number, j: number): boolean {
    return this.#isLess(this.#items[i]!, this.#items[j]!);
  }

  #swap(i: number, j: number): void {
    const items = this.#items;
    const item = items[i]!;
    items[i] = items[j]!;
    items[j] = item;
  }

  #insertionSort(start: number, end: number): void {
    for (let i = start + 1; i < end; i++) {
      for (let j = i; j > start && this.#less(j, j - 1); j--) this.#swap(j, j - 1);
    }
  }

  #heapSort(start: number, end: number): void {
    const length = end - start;
    for (let i = (length - 1) >> 1; i >= 0; i--) this.#siftDown(i, length, start);
    for (let i = length - 1; i >= 0; i--) {
      this.#swap(start, start + i);
      this.#siftDown(0, i, start);
    }
  }

  #siftDown(root: number, length: number, start: number): void {
    for (let child = 2 * root + 1; child < length; child = 2 * root + 1) {
      if (child + 1 < length && this.#less(start + child, start + child + 1)) child++;
      if (!this.#less(start + root, start + child)) return;
      this.#swap(start + root, start + child);
      root = child;
    }
  }

  /** Smaller elements before the pivot, the others after it. `untouched`: they were already in that order. */
  #partition(start: number, end: number, pivot: number): { middle: number; untouched: boolean } {
    this.#swap(start, pivot);
    let i = start + 1;
    let j = end - 1;
    for (let untouched = true; ; untouched = false) {
      while (i <= j && this.#less(i, start)) i++;
      while (i <= j && !this.#less(j, start)) j--;
      if (i > j) {
        this.#swap(j, start);
        return { middle: j, untouched };
      }
      this.#swap(i++, j--);
    }
  }

  /** For when nothing is smaller than the pivot: elements equal to it first. Returns where the greater ones begin. */
  #partitionEqual(start: number, end: number, pivot: number): number {
    this.#swap(start, pivot);
    let i = start + 1;
    let j = end - 1;
    for (;;) {
      while (i <= j && !this.#less(start, i)) i++;
      while (i <= j && this.#less(start, j)) j--;
      if (i > j) return i;
      this.#swap(i++, j--);
    }
  }

  /** Moves a few elements to their places; true when that was enough. */
  #isNearlySorted(start: number, end: number): boolean {
    let i = start + 1;
    for (let shifts = 0; shifts < SHIFTS_MAX; shifts++) {
      while (i < end && !this.#less(i, i - 1)) i++;
      if (i === end) return true;
      if (end - start < LONG) return false;
      this.#swap(i, i - 1);
      if (i - start >= 2) for (let j = i - 1; j >= 1 && this.#less(j, j - 1); j--) this.#swap(j, j - 1);
      if (end - i >= 2) for (let j = i + 1; j < end && this.#less(j, j - 1); j++) this.#swap(j, j - 1);
    }
    return false;
  }

  /** Breaks patterns that cause bad pivots, with numbers from a generator seeded by the length. */
  #scatter(start: number, end: number): void {
    const length = end - start;
    let random = BigInt(length);
    const mask = (1n << BigInt(bitLength(length))) - 1n;
    const first = start + Math.floor(length / 4) * 2 - 1;
    for (let i = first; i <= first + 2; i++) {
      random = BigInt.asUintN(64, random ^ (random << 13n));
      random ^= random >> 7n;
      random = BigInt.asUintN(64, random ^ (random << 17n));
      let other = Number(random & mask);
      if (other >= length) other -= length;
      this.#swap(i, start + other);
    }
  }

  #choosePivot(start: number, end: number): number {
    const length = end - start;
    const quarter = Math.floor(length / 4);
    this.#swaps = 0;
    let [i, j, k] = [start + quarter, start + quarter * 2, start + quarter * 3];
    if (length < MEDIAN_MIN) return j;
    if (length >= LONG) {
      i = this.#median(i - 1, i, i + 1);
      j = this.#median(j - 1, j, j + 1);
      k = this.#median(k - 1, k, k + 1);
    }
    return this.#median(i, j, k);
  }

  #median(a: number, b: number, c: number): number {
    if (this.#outOfOrder(a, b)) [a, b] = [b, a];
    if (this.#outOfOrder(b, c)) b = c;
    return this.#outOfOrder(a, b) ? a : b;
  }

  #outOfOrder(i: number, j: number): boolean {
    const is = this.#less(j, i);
    if (is) this.#swaps++;
    return is;
  }

  #reverse(start: number, end: number): void {
    for (let i = start, j = end - 1; i < j; i++, j--) this.#swap(i, j);
  }
}

/** Bits of a whole number without leading zeros. */
const bitLength = (n: number): number => 32 - Math.clz32(n);
