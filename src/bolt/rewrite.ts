/**
 * Copies an open file to another one without free pages, while the first continues to be written. Changes committed
 * meanwhile are recorded in a separate file and applied to the copy at the end; so neither memory nor the time that
 * commits wait grows with the size of the file.
 *
 * In steps of a few megabytes: `copy` until `isCopied`, then `catchUp`, and with no batch in progress `finish`. The
 * copy is then durable, has the file's content, and takes its name.
 */
import { dirname } from "node:path";
import type { Disk, DiskFile } from "../base/disk.ts";
import type { CommitStep } from "./commit.ts";
import { BoltEngine, openBoltFile } from "./engine.ts";
import { BUCKET_ELEMENT, PAGE_SIZE } from "./format.ts";
import { PageCache } from "./page-cache.ts";
import { PageFile } from "./page-file.ts";
import { elementAt, leafFlags, leafKeyBytes, leafKeyStart, leafValueBytes } from "./raw-page.ts";
import { applyRecords, type KnownBucket } from "./records.ts";
import { StateReader, seekKey } from "./state-reader.ts";
import { BoltStream, metaPages } from "./writer.ts";

/** Bytes copied in one step. */
export const REWRITE_STEP_BYTES = 1024 * 1024;
const CACHE_BYTES = 4 * 1024 * 1024;
/**
 * The copy is synced whenever so many bytes are written: one sync of all of it at the end would keep the disk busy for
 * long, and every write to the log waits for the disk.
 */
const SYNC_BYTES = 8 * 1024 * 1024;
const NOTE_HEADER_BYTES = 4;

export class Rewrite {
  /** The state being copied: its pages must stay until `isCopied`. */
  readonly txid: number;
  isCopied = false;
  readonly #disk: Disk;
  readonly #target: string;
  readonly #stepBytes: number;
  readonly #buckets: readonly KnownBucket[];
  readonly #state: StateReader;
  readonly #names: readonly string[];
  readonly #out: DiskFile;
  readonly #stream = new BoltStream(true);
  #outAt = 2 * PAGE_SIZE;
  #unsyncedBytes = 0;
  #bucketIndex = -1;
  /** Where in the bucket to continue. */
  #from: Buffer | undefined;
  readonly #notes: DiskFile;
  readonly #notesAgain: DiskFile;
  #notedBytes = 0;
  #doneBytes = 0;
  #copy: BoltEngine | undefined;
  #areNotesRemoved = false;

  /** Throws BoltError and node's errors, as all of its methods do. */
  constructor(
    disk: Disk,
    engine: BoltEngine,
    target: string,
    buckets: readonly KnownBucket[],
    stepBytes: number = REWRITE_STEP_BYTES,
  ) {
    this.#stepBytes = stepBytes;
    this.#disk = disk;
    this.#target = target;
    this.#buckets = buckets;
    const pages = new PageFile(engine.file, engine.meta.pageSize);
    pages.pageCount = engine.meta.pageCount;
    this.txid = engine.meta.txid;
    this.#state = new StateReader(new PageCache(pages, CACHE_BYTES), engine.meta);
    this.#names = this.#state.bucketNames();
    this.#out = disk.open(target, "w", 0o600);
    this.#notes = disk.open(notesPathOf(target), "w", 0o600);
    this.#notesAgain = disk.open(notesPathOf(target), "r");
  }

  /** Bytes of recorded changes that are not applied yet. */
  get behindBytes(): number {
    return this.#notedBytes - this.#doneBytes;
  }

  /** Records of a batch after the state being copied. */
  note(records: Uint8Array): void {
    const header = Buffer.alloc(NOTE_HEADER_BYTES);
    header.writeUInt32LE(records.length);
    this.#notes.write(header, this.#notedBytes);
    this.#notes.write(records, this.#notedBytes + NOTE_HEADER_BYTES);
    this.#notedBytes += NOTE_HEADER_BYTES + records.length;
  }

  /** Copies some entries; `isCopied` is true when all are copied. */
  copy(): void {
    let copied = 0;
    while (copied < this.#stepBytes) {
      if (this.#from === undefined && !this.#startBucket()) return;
      copied += this.#copyFrom(this.#names[this.#bucketIndex]!, this.#stepBytes - copied);
    }
    this.#flush();
  }

  #startBucket(): boolean {
    if (++this.#bucketIndex < this.#names.length) {
      this.#stream.startBucket(Buffer.from(this.#names[this.#bucketIndex]!));
      this.#from = FIRST;
      return true;
    }
    const layout = this.#stream.finish();
    this.#flush();
    this.#out.write(metaPages(layout), 0);
    this.#out.close();
    this.isCopied = true;
    return false;
  }

  /** Copies entries of a bucket, about `most` bytes. */
  #copyFrom(name: string, most: number): number {
    const root = this.#state.bucket(name)!;
    let copied = 0;
    let last: Buffer | undefined;
    this.#state.forEachLeaf(root, this.#from === FIRST ? undefined : seekKey(this.#from!), (bytes, at, from, count) => {
      for (let i = from; i < count; i++) {
        const element = elementAt(at, i);
        if (leafFlags(bytes, element) & BUCKET_ELEMENT) {
          throw new Error(`bucket "${name}" holds buckets, which cannot be rewritten`);
        }
        const start = leafKeyStart(bytes, element);
        const keyEnd = start + leafKeyBytes(bytes, element);
        const end = keyEnd + leafValueBytes(bytes, element);
        this.#stream.add(bytes.subarray(start, keyEnd), bytes, keyEnd, end);
        copied += end - start;
        if (copied < most) continue;
        // The next possible key.
        last = Buffer.concat([bytes.subarray(start, keyEnd), FIRST]);
        return false;
      }
      return true;
    });
    this.#from = last;
    return copied;
  }

  #flush(): void {
    for (const chunk of this.#stream.take()) {
      this.#out.write(chunk, this.#outAt);
      this.#outAt += chunk.length;
      this.#unsyncedBytes += chunk.length;
    }
    if (this.#unsyncedBytes < SYNC_BYTES) return;
    this.#unsyncedBytes = 0;
    this.#out.dataSync();
  }

  /** Once everything is copied: applies some of the recorded changes. */
  catchUp(): void {
    this.#copy ??= this.#openCopy();
    const transaction = this.#copy.begin();
    for (let done = 0; done < this.#stepBytes && this.behindBytes > 0; ) {
      const records = this.#nextNote();
      applyRecords(records, this.#buckets, transaction);
      done += records.length;
    }
    const { steps, committed } = transaction.prepare();
    for (const step of withoutSyncs(steps)) {
      if (step.kind === "write") this.#copy.file.write(step.bytes, step.position);
      else if (step.kind === "resize") this.#copy.file.truncate(step.sizeBytes);
    }
    this.#copy.committed(committed);
  }

  #openCopy(): BoltEngine {
    const { file, meta } = openBoltFile(this.#disk, this.#target);
    return new BoltEngine(file, meta);
  }

  #nextNote(): Buffer {
    const header = Buffer.alloc(NOTE_HEADER_BYTES);
    this.#readNotes(header, this.#doneBytes);
    const records = Buffer.allocUnsafeSlow(header.readUInt32LE());
    this.#readNotes(records, this.#doneBytes + NOTE_HEADER_BYTES);
    this.#doneBytes += NOTE_HEADER_BYTES + records.length;
    return records;
  }

  #readNotes(target: Buffer, position: number): void {
    const count = this.#notesAgain.read(target, position);
    if (count < target.length) throw new Error(`${this.#notes.path} was cut short while it was in use`);
  }

  /**
   * With no batch in progress: applies the rest, makes the copy durable, including its free list, and gives it the name
   * `path`. If it throws, `path` is either file, with the same content.
   */
  finish(path: string): void {
    while (!this.isCopied) this.copy();
    while (this.behindBytes > 0) this.catchUp();
    const copy = (this.#copy ??= this.#openCopy());
    // Pages written without syncs are synced before the meta that refers to them.
    copy.file.dataSync();
    copy.commit(copy.begin(), { writeFreeList: true });
    this.#copy = undefined;
    copy.file.close();
    this.#removeNotes();
    this.#disk.rename(this.#target, path);
    this.#disk.syncDir(dirname(path));
  }

  /** Aborts, and removes the partial copy. */
  abandon(): void {
    this.#copy?.file.close();
    if (!this.isCopied) this.#out.close();
    if (!this.#areNotesRemoved) this.#removeNotes();
    if (this.#disk.exists(this.#target)) this.#disk.remove(this.#target);
  }

  #removeNotes(): void {
    this.#areNotesRemoved = true;
    this.#notes.close();
    this.#notesAgain.close();
    this.#disk.remove(notesPathOf(this.#target));
  }
}

function notesPathOf(target: string): string {
  return `${target}-notes`;
}

/** The copy is not in use yet: only its final state must be durable. */
function* withoutSyncs(steps: Iterable<CommitStep>): Generator<CommitStep, void, void> {
  for (const step of steps) if (step.kind !== "sync") yield step;
}

/** A start at the first key; also the suffix that makes the next possible key. */
const FIRST = Buffer.from([0]);
