import type { Backend } from "../backend/backend.ts";
import { KeyIndex } from "../index/key-index.ts";
import type { LeaseAttachments } from "../model/types.ts";

/**
 * The state shared by the parts of the store (transactions, compaction, restore, hashes). Not for use outside mvcc/.
 */
export class StoreCore {
  backend: Backend;
  index: KeyIndex;
  readonly leases: LeaseAttachments;
  /** Revision of the last ended write transaction. */
  currentRevision = 1;
  /** The open write transaction has changed something. */
  hasOpenChanges = false;
  /** -1 before the first compaction. */
  compactRevision = -1;
  /** Incremented with each new backend, so that work on an old one can detect it and stop. */
  epoch = 0;
  readonly #hashSecret: bigint;

  constructor(backend: Backend, leases: LeaseAttachments, hashSecret: bigint) {
    this.backend = backend;
    this.leases = leases;
    this.#hashSecret = hashSecret;
    this.index = this.newIndex();
  }

  newIndex(): KeyIndex {
    return new KeyIndex(this.#hashSecret);
  }
}
