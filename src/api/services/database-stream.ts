import { createHash } from "node:crypto";
import type { Clock } from "../../base/clock.ts";
import type { Backend } from "../../mvcc/backend/backend.ts";
import { SnapshotResponse } from "../../proto/etcdserverpb.ts";
import type { StreamCall } from "../../rpc/contract.ts";
import { BackendImage } from "../../server/snapshot/database-image.ts";

/** Database bytes per response, as in etcd. */
const PIECE_BYTES = 32 * 1024;

/**
 * Streams a backup: the whole backend at one moment as a bbolt file, then its sha256, as stock etcd does and its tools
 * expect.
 */
export async function streamDatabase(
  call: StreamCall,
  backend: Backend,
  clock: Clock,
  version: string,
): Promise<number> {
  const image = await BackendImage.open(backend, clock, () => call.cancelled);
  if (image === undefined) return 0;
  try {
    const hash = createHash("sha256");
    let remainingBytes = image.sizeBytes;
    for await (const chunk of image.chunks()) {
      for (let at = 0; at < chunk.length; at += PIECE_BYTES) {
        const blob = chunk.subarray(at, at + PIECE_BYTES);
        hash.update(blob);
        remainingBytes -= blob.length;
        if (!(await send(call, SnapshotResponse.create({ remainingBytes, blob, version })))) return 0;
      }
    }
    await send(call, SnapshotResponse.create({ blob: hash.digest(), version }));
    return image.sizeBytes;
  } finally {
    image.close();
  }
}

/** False when the client is gone. Resolves when it can take more. */
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
