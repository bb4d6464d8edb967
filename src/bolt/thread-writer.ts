import type { Worker } from "node:worker_threads";
import { startThread } from "../base/start-thread.ts";
import { type Waiter, waiter } from "../base/waiter.ts";
import type { KnownBucket } from "./records.ts";
import type { CommitOptions, StoreWriter, Written } from "./store-writer.ts";
import type { FromThread, ThreadData, ToThread } from "./thread.ts";
import { arrivedError } from "./thread-error.ts";

/** Writes on a separate thread (thread.ts), so that syncs and page sorting do not block the event loop. */
export class ThreadWriter implements StoreWriter {
  readonly opened: Promise<{ readonly freePages: number }>;
  readonly #worker: Worker;
  readonly #openWaiter: Waiter<{ readonly freePages: number }>;
  #commit: Waiter<Written> | undefined;
  #copy: Waiter<void> | undefined;
  #closed: Waiter<void> | undefined;
  #failure: Error | undefined;
  #hasEnded = false;
  #waiting = 0;

  constructor(path: string, buckets: readonly KnownBucket[]) {
    const workerData: ThreadData = { path, buckets };
    this.#worker = startThread({
      from: import.meta.url,
      source: "./thread.ts",
      built: "bolt-thread.js",
      name: "bolt",
      workerData,
    });
    this.#openWaiter = this.#await();
    this.opened = this.#openWaiter.promise;
    // Reported with the next commit otherwise.
    this.opened.catch(() => {});
    this.#worker.on("message", (message: FromThread) => this.#receive(message));
    this.#worker.on("error", (error) => this.#fail(error));
    this.#worker.on("exit", () => {
      this.#hasEnded = true;
      this.#closed?.resolve();
      this.#fail(new Error(`the thread that writes ${path} has ended`));
    });
  }

  /** The thread keeps the process alive only while a caller waits for it. */
  #await<T>(): Waiter<T> {
    const waits = waiter<T>();
    this.#waiting++;
    this.#worker.ref();
    const done = (): void => {
      if (--this.#waiting === 0) this.#worker.unref();
    };
    waits.promise.then(done, done);
    return waits;
  }

  begin(readers: readonly number[]): void {
    this.#send({ kind: "begin", readers });
  }

  add(records: Uint8Array<ArrayBuffer>): void {
    this.#worker.postMessage({ kind: "add", records } satisfies ToThread, [records.buffer]);
  }

  commit(options: CommitOptions = {}): Promise<Written> {
    if (this.#failure !== undefined) return Promise.reject(this.#failure);
    if (this.#commit !== undefined) throw new Error("one commit at a time");
    this.#commit = this.#await();
    this.#send({ kind: "commit", options });
    return this.#commit.promise;
  }

  rewrite(target: string): Promise<void> {
    return this.#askForCopy({ kind: "rewrite", target });
  }

  finishRewrite(path: string): Promise<void> {
    return this.#askForCopy({ kind: "finishRewrite", path });
  }

  abandonRewrite(): void {
    this.#copy?.reject(new Error("the copy was given up"));
    this.#copy = undefined;
    this.#send({ kind: "abandonRewrite" });
  }

  #askForCopy(message: ToThread): Promise<void> {
    if (this.#failure !== undefined) return Promise.reject(this.#failure);
    this.#copy = this.#await();
    this.#send(message);
    return this.#copy.promise;
  }

  close(): Promise<void> {
    if (this.#closed !== undefined) return this.#closed.promise;
    this.#closed = this.#await();
    if (this.#hasEnded) this.#closed.resolve();
    this.#send({ kind: "close" });
    return this.#closed.promise;
  }

  #send(message: ToThread): void {
    this.#worker.postMessage(message);
  }

  #receive(message: FromThread): void {
    if (message.kind === "opened") this.#openWaiter.resolve({ freePages: message.freePages });
    else if (message.kind === "failed") this.#fail(arrivedError(message.error));
    else if (message.kind === "closed") this.#closed?.resolve();
    else if (message.kind === "rewritten") this.#copy?.resolve();
    else if (message.kind === "notRewritten") this.#copy?.reject(arrivedError(message.error));
    else {
      const commit = this.#commit;
      this.#commit = undefined;
      commit?.resolve(message.written);
    }
  }

  #fail(error: Error): void {
    this.#failure ??= error;
    this.#openWaiter.reject(this.#failure);
    this.#commit?.reject(this.#failure);
    this.#commit = undefined;
    this.#copy?.reject(this.#failure);
  }
}
