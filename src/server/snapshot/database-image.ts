import type { Backend, BackendSnapshot, SnapshotImage } from "../../mvcc/backend/backend.ts";
import type { DatabaseImage } from "../contract/network.ts";

/** The backend's file as of one moment, for a backup or for another member. */
export class BackendImage implements DatabaseImage {
  readonly sizeBytes: number;
  readonly #snapshot: BackendSnapshot;
  readonly #image: SnapshotImage;

  /** Resolves to undefined when cancelled. Close the image. */
  static async open(backend: Backend, isCancelled: () => boolean): Promise<BackendImage | undefined> {
    const snapshot = await backend.snapshot();
    if (!isCancelled()) return new BackendImage(snapshot);
    snapshot.close();
    return undefined;
  }

  private constructor(snapshot: BackendSnapshot) {
    this.#snapshot = snapshot;
    this.#image = snapshot.image();
    this.sizeBytes = this.#image.sizeBytes;
  }

  /** The rows of the same moment. */
  get snapshot(): BackendSnapshot {
    return this.#snapshot;
  }

  chunks(): AsyncIterable<Uint8Array> {
    return this.#image.chunks();
  }

  close(): void {
    this.#snapshot.close();
  }
}
