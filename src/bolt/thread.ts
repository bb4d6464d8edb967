/**
 * The thread that writes a bbolt file: executes `ThreadWriter`'s requests in order, and may block as long as the disk
 * does. It is a separate program in its own file.
 */
import { parentPort, workerData } from "node:worker_threads";
import { systemDisk } from "../base/disk.ts";
import { commitNow } from "./commit.ts";
import type { KnownBucket } from "./records.ts";
import { BatchEngine, type CommitOptions, type Written } from "./store-writer.ts";
import { type CarriedError, carryError } from "./thread-error.ts";

export interface ThreadData {
  readonly path: string;
  readonly buckets: readonly KnownBucket[];
}

export type ToThread =
  | { readonly kind: "begin"; readonly readers: readonly number[] }
  | { readonly kind: "add"; readonly records: Uint8Array<ArrayBuffer> }
  | { readonly kind: "commit"; readonly options: CommitOptions }
  | { readonly kind: "rewrite"; readonly target: string }
  | { readonly kind: "finishRewrite"; readonly path: string }
  | { readonly kind: "abandonRewrite" }
  | { readonly kind: "close" };

export type FromThread =
  | { readonly kind: "opened"; readonly freePages: number }
  | { readonly kind: "written"; readonly written: Written }
  | { readonly kind: "rewritten" }
  /** A copy has failed and is removed: the file itself is unaffected. */
  | { readonly kind: "notRewritten"; readonly error: CarriedError }
  | { readonly kind: "failed"; readonly error: CarriedError }
  | { readonly kind: "closed" };

const port = parentPort!;
const data = workerData as ThreadData;
let batches: BatchEngine | undefined;
let isFailed = false;

const answer = (message: FromThread): void => port.postMessage(message);

/** After the first failure nothing more is done: the state of the file is unknown. */
function attempt(action: () => void): void {
  if (isFailed) return;
  try {
    action();
  } catch (error) {
    isFailed = true;
    answer({ kind: "failed", error: carryError(error) });
  }
}

attempt(() => {
  batches = new BatchEngine(systemDisk, data.path, data.buckets);
  answer({ kind: "opened", freePages: batches.engine.freePages });
});

/** The copy must not prevent writing the file. */
function attemptRewrite(action: (of: BatchEngine) => void): boolean {
  if (isFailed || batches === undefined) return false;
  try {
    action(batches);
    return true;
  } catch (error) {
    answer({ kind: "notRewritten", error: carryError(error) });
    attempt(() => batches!.abandonRewrite());
    return false;
  }
}

/** Messages are handled between two steps. */
function goOnRewriting(): void {
  attemptRewrite((of) => {
    if (of.stepRewrite()) setImmediate(goOnRewriting);
    else answer({ kind: "rewritten" });
  });
}

port.on("message", (message: ToThread) => {
  switch (message.kind) {
    case "close":
      attempt(() => batches?.abandonRewrite());
      batches?.engine.file.close();
      answer({ kind: "closed" });
      port.close();
      return;
    case "rewrite":
      if (attemptRewrite((of) => of.startRewrite(message.target))) goOnRewriting();
      return;
    case "finishRewrite":
      attemptRewrite((of) => {
        of.finishRewrite(message.path);
        answer({ kind: "rewritten" });
      });
      return;
    case "abandonRewrite":
      attempt(() => batches!.abandonRewrite());
      return;
    case "begin":
      attempt(() => batches!.begin(message.readers));
      return;
    case "add":
      attempt(() => batches!.add(message.records));
      return;
    case "commit":
      attempt(() => {
        const { engine } = batches!;
        const { steps, committed } = batches!.end().prepare(message.options);
        commitNow(engine.file, steps);
        engine.committed(committed);
        answer({ kind: "written", written: { ...committed, freePages: engine.freePages } });
      });
  }
});
