import type { Clock } from "../base/clock.ts";
import { type BoltBucketSource, type BoltLayout, boltChunks, measureBoltInSteps } from "../bolt/writer.ts";
import type { Backend, BackendSnapshot } from "../mvcc/backend.ts";
import type { DatabaseImage } from "./network.ts";

/**
 * The whole backend at one moment as a bbolt file, the form in which etcd hands databases around. The file is never
 * stored: one pass over a snapshot measures it, a second one writes it, both with turns for everybody else in between.
 */
export class BackendImage implements DatabaseImage {
  readonly sizeBytes: number;
  readonly #snapshot: BackendSnapshot;
  readonly #buckets: readonly BoltBucketSource[];
  readonly #layout: BoltLayout;
  readonly #clock: Clock;

  /** Resolves to undefined when it was cancelled. Close the image. */
  static async open(backend: Backend, clock: Clock, isCancelled: () => boolean): Promise<BackendImage | undefined> {
    const snapshot = await backend.snapshot();
    try {
      const buckets = bucketsOf(snapshot);
      const steps = measureBoltInSteps(buckets);
      for (;;) {
        const step = steps.next();
        if (step.done) return new BackendImage(snapshot, buckets, step.value, clock);
        await turn(clock);
        if (isCancelled()) {
          snapshot.close();
          return undefined;
        }
      }
    } catch (error) {
      snapshot.close();
      throw error;
    }
  }

  private constructor(
    snapshot: BackendSnapshot,
    buckets: readonly BoltBucketSource[],
    layout: BoltLayout,
    clock: Clock,
  ) {
    this.sizeBytes = layout.sizeBytes;
    this.#snapshot = snapshot;
    this.#buckets = buckets;
    this.#layout = layout;
    this.#clock = clock;
  }

  /** What the image is of. */
  get snapshot(): BackendSnapshot {
    return this.#snapshot;
  }

  async *chunks(): AsyncGenerator<Uint8Array, void, void> {
    for (const chunk of boltChunks(this.#buckets, this.#layout)) {
      yield chunk;
      await turn(this.#clock);
    }
  }

  close(): void {
    this.#snapshot.close();
  }
}

function bucketsOf(snapshot: BackendSnapshot): BoltBucketSource[] {
  return snapshot.buckets().map((name) => ({
    name: Buffer.from(name),
    *entries() {
      for (const chunk of snapshot.entries(name)) yield* chunk;
    },
  }));
}

const turn = (clock: Clock): Promise<void> => new Promise((resolve) => clock.defer(resolve));
