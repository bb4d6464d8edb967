/** Runs asynchronous jobs one at a time, in order of the calls. A failed job does not stop the next. */
export class SerialQueue {
  #last: Promise<void> = Promise.resolve();

  run<T>(job: () => Promise<T>): Promise<T> {
    const result = this.#last.then(job);
    this.#last = result.then(ignore, ignore);
    return result;
  }

  /** Resolves when every job queued before the call is done. */
  idle(): Promise<void> {
    return this.#last;
  }
}

function ignore(): void {}
