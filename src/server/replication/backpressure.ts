import type { Backend } from "../../mvcc/backend/backend.ts";

/** While the disk under the backend is behind, nothing is applied: applied data must not pile up in memory. */
export class Backpressure {
  readonly #backend: () => Backend;
  readonly #onEnd: () => void;
  readonly #onFailure: (error: unknown) => void;
  /** Until the backend has written what it holds. */
  #isOn = false;

  constructor(options: { backend: () => Backend; onEnd: () => void; onFailure: (error: unknown) => void }) {
    this.#backend = options.backend;
    this.#onEnd = options.onEnd;
    this.#onFailure = options.onFailure;
  }

  /** Asked before entries are applied; after a true answer `onEnd` is called when to go on. */
  isBlocked(): boolean {
    if (this.#isOn) return true;
    const backend = this.#backend();
    if (!backend.overloaded) return false;
    this.#isOn = true;
    void backend.drained().then(() => {
      this.#isOn = false;
      this.#onEnd();
    }, this.#onFailure);
    return true;
  }
}
