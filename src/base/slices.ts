import type { SliceBudget } from "./slice-budget.ts";

/** A computation in slices: each `next` runs one, and the event loop turn may end at each `yield`. */
export type Slices<T> = Generator<void, T, void>;

/** Ends the slice: the turn may end here. */
export function* nextSlice(budget: SliceBudget): Slices<void> {
  yield;
  budget.refill();
}

/** Runs all slices at once. */
export function allSlices<T>(slices: Slices<T>): T {
  for (;;) {
    const { done, value } = slices.next();
    if (done === true) return value;
  }
}
