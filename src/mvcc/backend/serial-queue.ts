/** Runs asynchronous jobs one after the other, in the order of the calls. A job that fails does not stop the next. */
export class SerialQueue {
  #last: Promise<void> = Promise.resolve();

  run<T>(job: () => Promise<T>): Promise<T> {
    const result = this.#last.then(job);
    this.#last = result.then(ignore, ignore);
    return result;
  }

  /** Resolves when everything that was queued before the call is done. */
  idle(): Promise<void> {
    return this.#last;
  }
}

function ignore(): void {}
