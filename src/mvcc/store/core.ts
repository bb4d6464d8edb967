import type { Backend } from "../backend/backend.ts";
import { KeyIndex } from "../index/key-index.ts";
import type { LeaseAttachments } from "../model/types.ts";

/** The state that the store and its parts (transactions, compaction, restore, hashes) work on. Not for use outside mvcc/. */
export class StoreCore {
  backend: Backend;
  index: KeyIndex;
  readonly leases: LeaseAttachments;
  /** Revision of the last ended write transaction. */
  currentRevision = 1;
  /** The write transaction that is open has changed something. */
  hasOpenChanges = false;
  /** -1 before the first compaction. */
  compactRevision = -1;
  /** Counts the backends, so that work on an old one can notice and stop. */
  epoch = 0;
  readonly #hashSeed: number;

  constructor(backend: Backend, leases: LeaseAttachments, hashSeed: number) {
    this.backend = backend;
    this.leases = leases;
    this.#hashSeed = hashSeed;
    this.index = this.newIndex();
  }

  newIndex(): KeyIndex {
    return new KeyIndex(this.#hashSeed);
  }
}
