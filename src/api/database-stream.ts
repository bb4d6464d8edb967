import { createHash } from "node:crypto";
import type { Clock } from "../base/clock.ts";
import { type BoltBucketSource, type BoltLayout, boltChunks, measureBoltInSteps } from "../bolt/writer.ts";
import type { Backend, BackendSnapshot } from "../mvcc/backend.ts";
import { SnapshotResponse } from "../proto/etcdserverpb.ts";
import type { StreamCall } from "../rpc/server.ts";

/** Bytes of the database in one response, as etcd sends it. */
const PIECE_BYTES = 32 * 1024;

/**
 * Streams a backup: the whole backend at one moment as a bbolt file, then its sha256, as stock etcd sends it and its
 * tools expect it. The file is never stored: one pass over the snapshot measures it, a second one writes it.
 */
export async function streamDatabase(
  call: StreamCall,
  backend: Backend,
  clock: Clock,
  version: string,
): Promise<number> {
  const snapshot = await backend.snapshot();
  try {
    const buckets = bucketsOf(snapshot);
    const layout = await measure(buckets, call, clock);
    if (layout === undefined) return 0;
    const hash = createHash("sha256");
    let remainingBytes = layout.sizeBytes;
    for (const chunk of boltChunks(buckets, layout)) {
      for (let at = 0; at < chunk.length; at += PIECE_BYTES) {
        const blob = chunk.subarray(at, at + PIECE_BYTES);
        hash.update(blob);
        remainingBytes -= blob.length;
        if (!(await send(call, SnapshotResponse.create({ remainingBytes, blob, version })))) return 0;
      }
      await turn(clock);
    }
    await send(call, SnapshotResponse.create({ blob: hash.digest(), version }));
    return layout.sizeBytes;
  } finally {
    snapshot.close();
  }
}

async function measure(
  buckets: readonly BoltBucketSource[],
  call: StreamCall,
  clock: Clock,
): Promise<BoltLayout | undefined> {
  const steps = measureBoltInSteps(buckets);
  for (;;) {
    const step = steps.next();
    if (step.done) return step.value;
    await turn(clock);
    if (call.cancelled) return undefined;
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

/** False when the client has gone. Resolves when it can take more. */
function send(call: StreamCall, response: SnapshotResponse): boolean | Promise<boolean> {
  if (call.cancelled) return false;
  if (call.send(SnapshotResponse.encode(response))) return true;
  return new Promise((resolve) => {
    const done = (): void => {
      call.onDrain = null;
      call.onCancel = null;
      resolve(!call.cancelled);
    };
    call.onDrain = done;
    call.onCancel = done;
  });
}

const turn = (clock: Clock): Promise<void> => new Promise((resolve) => clock.defer(resolve));
