/** A stream or call that may stand in the list. */
export interface Ready<T> {
  /** It stands in the list. */
  ready: boolean;
  readyNext: T | null;
}

/** Those that have data and window, in turn. Linked through themselves, so that no step allocates. */
export class ReadyList<T extends Ready<T>> {
  #first: T | null = null;
  #last: T | null = null;

  get isEmpty(): boolean {
    return this.#first === null;
  }

  /** It must not stand in the list. */
  push(each: T): void {
    each.ready = true;
    each.readyNext = null;
    if (this.#last === null) this.#first = each;
    else this.#last.readyNext = each;
    this.#last = each;
  }

  /** Removes the first. The list must not be empty. */
  shift(): T {
    const first = this.#first!;
    this.#first = first.readyNext;
    if (this.#first === null) this.#last = null;
    first.ready = false;
    first.readyNext = null;
    return first;
  }
}
