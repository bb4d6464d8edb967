/**
 * The databases of a simulated machine: the production engine on its simulated disk, written inline, so that a crash can
 * come between any write and the sync that makes it durable. Remembers what was reported as durable, and checks what
 * each end of a process leaves: every file passes the check of all its pages, and no reported commit is lost.
 */
import type { Clock } from "../../src/base/clock.ts";
import { checkBolt } from "../../src/bolt/check.ts";
import { createBoltFile } from "../../src/bolt/engine.ts";
import { BoltError } from "../../src/bolt/format.ts";
import { BoltReader } from "../../src/bolt/reader.ts";
import { InlineWriter, type StoreWriter } from "../../src/bolt/store-writer.ts";
import type { Backend, BackendSnapshot } from "../../src/mvcc/backend/backend.ts";
import { knownBuckets } from "../../src/mvcc/backend/batch-records.ts";
import { BoltBackend } from "../../src/mvcc/backend/bolt-backend.ts";
import type { BoltBackendOptions } from "../../src/mvcc/backend/options.ts";
import { mainOf, REVISION_BYTES } from "../../src/mvcc/model/revision.ts";
import type { SimDisk } from "./disk.ts";

const IMAGE_CHUNK_BYTES = 4096;

/** How a machine's databases differ from those in production. */
export interface DatabaseShape {
  /** Of new files; one that another member sent has pages of 4096 bytes. */
  readonly pageSize: number;
  /** So few that batches being committed hold back the apply loop. */
  readonly pendingBytesMax: number;
  /** So few that a defragmentation takes many steps, with commits between them. */
  readonly rewriteStepBytes: number;
  /** Time that a step of a defragmentation takes. */
  readonly stepMs: () => number;
  /** Time that a long write waits after each of its turns. */
  readonly roomDelayMs: () => number;
}

export class SimDatabases {
  /** The newest transaction reported as durable, by the file's identity on the disk. */
  readonly #durable = new Map<string, number>();
  /** Paths of open files, and of those that were open when the process ended. */
  readonly #paths = new Set<string>();

  open(disk: SimDisk, options: BoltBackendOptions, shape: DatabaseShape): Backend {
    const { path } = options;
    if (!disk.exists(path)) createBoltFile(disk, path, { pageSize: shape.pageSize });
    const writer = (file: string): StoreWriter => {
      const identity = disk.identityOf(file);
      const turn = (): Promise<void> => new Promise((resolve) => options.clock.after(shape.stepMs(), resolve));
      const inline = new InlineWriter(disk, file, knownBuckets, turn, shape.rewriteStepBytes);
      const commit = inline.commit.bind(inline);
      inline.commit = async (how) => {
        const written = await commit(how);
        this.#durable.set(identity, written.meta.txid);
        return written;
      };
      return inline;
    };
    this.#paths.add(path);
    return new SimBackend(
      // No page stays in memory for long: damage on the disk is met while the member runs.
      { ...options, pendingBytesMax: shape.pendingBytesMax, cacheBytes: 0, storage: { disk, writer } },
      shape.roomDelayMs,
      (to) => this.#paths.add(to),
    );
  }

  /** The file's newest meta page is damaged: the state before it counts. */
  wentBack(disk: SimDisk, path: string): void {
    this.#durable.delete(disk.identityOf(path));
  }

  /** What is wrong with the files that the end of a process has left. */
  problems(disk: SimDisk): string[] {
    const problems: string[] = [];
    for (const path of this.#paths) {
      if (!disk.exists(path)) this.#paths.delete(path);
      else problems.push(...databaseProblems(disk, path, this.#durable.get(disk.identityOf(path)) ?? 0));
    }
    return problems;
  }
}

/** What is wrong with a file, which must not be behind a transaction that was reported as durable. */
export function databaseProblems(disk: SimDisk, path: string, durableTxid = 0): string[] {
  try {
    const reader = new BoltReader({ disk, path });
    const problems = [...checkBolt(reader)].map((problem) => `${path}: ${problem}`);
    const { txid } = reader.meta;
    if (txid < durableTxid)
      problems.push(`${path} is at transaction ${txid}, but ${durableTxid} was reported as durable`);
    reader.close();
    return problems;
  } catch (error) {
    if (error instanceof BoltError) return [error.message];
    throw error;
  }
}

/** Flips the last bit of the first stored pair that `isChosen`, given its revision. */
export function damageRow(disk: SimDisk, path: string, isChosen: (main: number, bytes: Uint8Array) => boolean): void {
  const reader = new BoltReader({ disk, path });
  for (const { key, value } of reader.bucket(Buffer.from("key"))?.entries() ?? []) {
    if (key.length !== REVISION_BYTES || !isChosen(mainOf(key), value)) continue;
    const content = disk.contentOf(path);
    const stored = Buffer.concat([key, value]);
    const damaged = Buffer.from([value.at(-1)! ^ 1]);
    // Free pages may hold it too.
    for (let at = content.indexOf(stored); at >= 0; at = content.indexOf(stored, at + 1)) {
      disk.patch(path, at + stored.length - 1, damaged);
    }
    break;
  }
  reader.close();
}

/** A long write waits after each of its turns, so that commits come between them. */
class SimBackend extends BoltBackend {
  readonly #clock: Clock;
  readonly #roomDelayMs: () => number;
  readonly #moved: (to: string) => void;
  #isInLongWrite = false;
  #isFull = false;
  #roomLeft: (() => void)[] = [];

  constructor(options: BoltBackendOptions, roomDelayMs: () => number, moved: (to: string) => void) {
    super(options);
    this.#clock = options.clock;
    this.#roomDelayMs = roomDelayMs;
    this.#moved = moved;
  }

  /** Sent in small chunks, with commits between them. */
  override async snapshot(): Promise<BackendSnapshot> {
    const snapshot = await super.snapshot();
    const image = snapshot.image.bind(snapshot);
    snapshot.image = () => image(IMAGE_CHUNK_BYTES);
    return snapshot;
  }

  override moveTo(path: string): void {
    super.moveTo(path);
    this.#moved(path);
  }

  override beginLongWrite(main: number): void {
    super.beginLongWrite(main);
    this.#isInLongWrite = true;
  }

  override endLongWrite(): void {
    this.#isInLongWrite = false;
    super.endLongWrite();
  }

  override putRevision(
    main: number,
    sub: number,
    tombstone: boolean,
    bytes: Uint8Array,
    start: number,
    end: number,
  ): void {
    super.putRevision(main, sub, tombstone, bytes, start, end);
    if (this.#isInLongWrite) this.#fill();
  }

  override get hasRoom(): boolean {
    return !this.#isFull && super.hasRoom;
  }

  override async roomLeft(): Promise<void> {
    if (this.#isFull) await new Promise<void>((resolve) => this.#roomLeft.push(resolve));
    await super.roomLeft();
  }

  #fill(): void {
    if (this.#isFull) return;
    this.#isFull = true;
    this.#clock.after(this.#roomDelayMs(), () => {
      this.#isFull = false;
      const waiting = this.#roomLeft;
      this.#roomLeft = [];
      for (const resolve of waiting) resolve();
    });
  }
}
