import { Worker } from "node:worker_threads";

/**
 * What a thread runs: plain JavaScript without imports of its own, because there is no file for it, neither in a bundle nor in
 * the source. The library is resolved by the main thread, which knows where it stands.
 */
const PROGRAM = `
const { parentPort, workerData } = require("node:worker_threads");
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

/** Either a salt, to make a hash with, or a hash, to compare with. */
type Job = { readonly password: string; readonly salt: string } | { readonly password: string; readonly hash: string };

type Reply = { readonly value: string | boolean } | { readonly error: string };

interface Waiting {
  readonly job: Job;
  readonly resolve: (value: string | boolean) => void;
  readonly reject: (err: Error) => void;
}

/**
 * Threads that run bcrypt, which takes a tenth of a second of computing each time. They are started when first needed and do
 * not keep the process alive. A job whose thread ends fails, and the next one gets a new thread.
 */
export class BcryptThreads {
  readonly #threadsMax: number;
  readonly #idle: Worker[] = [];
  readonly #busy = new Map<Worker, Waiting>();
  #waiting: Waiting[] = [];

  constructor(threadsMax: number) {
    this.#threadsMax = threadsMax;
  }

  /** How many jobs have neither been answered nor failed. */
  get pending(): number {
    return this.#busy.size + this.#waiting.length;
  }

  hash(password: string, salt: string): Promise<string> {
    return this.#run({ password, salt }) as Promise<string>;
  }

  /** Rejects when `hash` is no hash of bcrypt's. */
  matches(password: string, hash: string): Promise<boolean> {
    return this.#run({ password, hash }) as Promise<boolean>;
  }

  #run(job: Job): Promise<string | boolean> {
    return new Promise((resolve, reject) => {
      this.#waiting.push({ job, resolve, reject });
      this.#next();
    });
  }

  #next(): void {
    while (this.#waiting.length > 0) {
      const worker = this.#idle.pop() ?? (this.#busy.size < this.#threadsMax ? this.#start() : undefined);
      if (worker === undefined) return;
      const waiting = this.#waiting.shift()!;
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
