import { createHash } from "node:crypto";
import type { StepResult, Ticket, Work } from "../../base/turns.ts";
import type { Backend } from "../../mvcc/backend/backend.ts";
import { SnapshotResponse } from "../../proto/etcdserverpb.ts";
import type { StreamCall } from "../../rpc/contract.ts";
import { BackendImage } from "../../server/snapshot/database-image.ts";

/** Database bytes per response, as in etcd. */
const PIECE_BYTES = 32 * 1024;

/**
 * Streams a backup: the whole backend at one moment as a bbolt file, then its sha256, as stock etcd does and its tools
 * expect. The file is read on the thread pool; a step hashes and sends one chunk of it, when the client takes more.
 */
export class DatabaseStream implements Work {
  readonly name = "Snapshot";
  readonly #call: StreamCall;
  readonly #backend: Backend;
  readonly #version: string;
  readonly #onEnd: (bytes: number, error: unknown) => void;
  readonly #hash = createHash("sha256");
  #ticket: Ticket | undefined;
  #image: BackendImage | undefined;
  #chunks: AsyncIterator<Uint8Array> | undefined;
  #chunk: Uint8Array | undefined;
  #remainingBytes = 0;
  #isFetching = false;
  #isRead = false;
  #isFull = false;
  #isOver = false;
  #failure: { readonly error: unknown } | undefined;

  /** `onEnd` is called once: with the database's bytes when all are sent, with an error, or when the client is gone. */
  constructor(call: StreamCall, backend: Backend, version: string, onEnd: (bytes: number, error: unknown) => void) {
    this.#call = call;
    this.#backend = backend;
    this.#version = version;
    this.#onEnd = onEnd;
    call.onCancel = () => this.#end(undefined);
    call.onDrain = () => {
      this.#isFull = false;
      this.#ticket?.resume();
    };
  }

  attach(ticket: Ticket): void {
    this.#ticket = ticket;
  }

  step(): StepResult {
    if (this.#failure !== undefined) throw this.#failure.error;
    if (this.#isOver) return "done";
    if (this.#isFull) return "wait";
    if (this.#isRead) {
      this.#call.send(
        SnapshotResponse.encode(SnapshotResponse.create({ blob: this.#hash.digest(), version: this.#version })),
      );
      this.#end(undefined);
      return "done";
    }
    const chunk = this.#chunk;
    this.#chunk = undefined;
    this.#fetch();
    if (chunk !== undefined) this.#send(chunk);
    return "wait";
  }

  fail(error: unknown): void {
    this.#end(error);
  }

  /** Resumes when the next chunk is here. */
  #fetch(): void {
    if (this.#isFetching) return;
    this.#isFetching = true;
    this.#next().then(
      (chunk) => {
        this.#isFetching = false;
        this.#chunk = chunk;
        this.#isRead = chunk === undefined;
        this.#ticket?.resume();
      },
      (error: unknown) => {
        this.#failure = { error };
        this.#ticket?.resume();
      },
    );
  }

  /** The next chunk; undefined after the last. */
  async #next(): Promise<Uint8Array | undefined> {
    if (this.#chunks === undefined) {
      this.#image = await BackendImage.open(this.#backend, () => this.#isOver);
      if (this.#image === undefined) return undefined;
      this.#remainingBytes = this.#image.sizeBytes;
      this.#chunks = this.#image.chunks()[Symbol.asyncIterator]();
    }
    const { done, value } = await this.#chunks.next();
    return done ? undefined : value;
  }

  #send(chunk: Uint8Array): void {
    this.#hash.update(chunk);
    for (let at = 0; at < chunk.length; at += PIECE_BYTES) {
      const blob = chunk.subarray(at, at + PIECE_BYTES);
      this.#remainingBytes -= blob.length;
      const remainingBytes = this.#remainingBytes;
      const isTaken = this.#call.send(
        SnapshotResponse.encode(SnapshotResponse.create({ remainingBytes, blob, version: this.#version })),
      );
      if (!isTaken) this.#isFull = true;
    }
  }

  #end(error: unknown): void {
    if (this.#isOver) return;
    this.#isOver = true;
    const bytes = this.#image?.sizeBytes ?? 0;
    this.#image?.close();
    this.#ticket?.cancel();
    this.#onEnd(bytes, error);
  }
}
