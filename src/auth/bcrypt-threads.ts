import { Worker } from "node:worker_threads";
import { type HashAsker, HashQueue, type HashQueueLimits } from "./hash-queue.ts";

/**
 * The thread's program: plain JavaScript without imports, because it has no file, neither in a bundle nor in the
 * source. The main thread resolves the library, because it knows its own location.
 */
const PROGRAM = `
const { parentPort, workerData } = require("node:worker_threads");
// On Linux this is the thread's own: the main thread has the processor before it.
if (process.platform === "linux") try { require("node:os").setPriority(0, 10); } catch {}
import(workerData).then((library) => {
  const { hashSync, compareSync } = library.default;
  parentPort.on("message", ({ password, salt, hash }) => {
    try {
      parentPort.postMessage({ value: hash === undefined ? hashSync(password, salt) : compareSync(password, hash) });
    } catch (err) {
      parentPort.postMessage({ error: String(err) });
    }
  });
});
`;

/** Either a salt, to hash with, or a hash, to compare with. */
type Job = { readonly password: string; readonly salt: string } | { readonly password: string; readonly hash: string };

type Reply = { readonly value: string | boolean } | { readonly error: string };

interface Waiting {
  readonly job: Job;
  readonly resolve: (value: string | boolean | undefined) => void;
  readonly reject: (err: Error) => void;
}

/**
 * Threads that run bcrypt, which takes a tenth of a second of processor time per call. They start on demand and do not
 * keep the process alive. A job whose thread ends fails; the next one gets a new thread.
 */
export class BcryptThreads {
  readonly #threadsMax: number;
  readonly #idle: Worker[] = [];
  readonly #busy = new Map<Worker, Waiting>();
  readonly #waiting: HashQueue<Waiting>;

  constructor(threadsMax: number, limits: HashQueueLimits) {
    this.#threadsMax = threadsMax;
    this.#waiting = new HashQueue(limits);
  }

  /** Jobs that have neither completed nor failed. */
  get pending(): number {
    return this.#busy.size + this.#waiting.length;
  }

  /** Undefined when too many wait, or when the caller has gone. */
  hash(password: string, salt: string, asker?: HashAsker): Promise<string | undefined> {
    return this.#run({ password, salt }, asker) as Promise<string | undefined>;
  }

  /** The same. Rejects when `hash` is not a bcrypt hash. */
  matches(password: string, hash: string, asker?: HashAsker): Promise<boolean | undefined> {
    return this.#run({ password, hash }, asker) as Promise<boolean | undefined>;
  }

  #run(job: Job, asker: HashAsker | undefined): Promise<string | boolean | undefined> {
    return new Promise((resolve, reject) => {
      if (this.#waiting.push({ job, resolve, reject }, asker)) this.#next();
      else resolve(undefined);
    });
  }

  #next(): void {
    while (this.#waiting.length > 0) {
      const worker = this.#idle.pop() ?? (this.#busy.size < this.#threadsMax ? this.#start() : undefined);
      if (worker === undefined) return;
      const waiting = this.#waiting.take(({ resolve }) => resolve(undefined));
      if (waiting === undefined) {
        this.#idle.push(worker);
        return;
      }
      this.#busy.set(worker, waiting);
      worker.ref();
      worker.postMessage(waiting.job);
    }
  }

  #start(): Worker {
    const worker = new Worker(PROGRAM, {
      eval: true,
      workerData: import.meta.resolve("bcryptjs"),
      execArgv: [],
      env: {},
      resourceLimits: { maxOldGenerationSizeMb: 64 },
    });
    worker.on("message", (reply: Reply) => this.#finish(worker, reply));
    worker.on("error", (err) => this.#fail(worker, err));
    worker.on("exit", () => this.#fail(worker, new Error("the thread that compares passwords has ended")));
    return worker;
  }

  #finish(worker: Worker, reply: Reply): void {
    const done = this.#busy.get(worker);
    this.#busy.delete(worker);
    worker.unref();
    this.#idle.push(worker);
    if ("value" in reply) done?.resolve(reply.value);
    else done?.reject(new Error(reply.error));
    this.#next();
  }

  #fail(worker: Worker, err: Error): void {
    const failed = this.#busy.get(worker);
    this.#busy.delete(worker);
    const at = this.#idle.indexOf(worker);
    if (at >= 0) this.#idle.splice(at, 1);
    failed?.reject(err);
    this.#next();
  }
}
