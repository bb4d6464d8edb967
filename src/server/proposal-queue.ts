import { varintSize, writeVarint } from "../base/varint.ts";
import type { EtcdError } from "./errors.ts";
import type { Proposal } from "./proposal.ts";
import type { RequestIdGenerator } from "./request-id.ts";

/** Bytes and requests that may wait to be proposed: beyond, clients are told to slow down. */
const WAITING_BYTES_MAX = 512 * 1024 * 1024;
const WAITING_MAX = 100_000;

/** tag of `header` (field 100, length-delimited) and of RequestHeader.ID in InternalRaftRequest. */
const HEADER_TAG = [0xa2, 0x06] as const;
const HEADER_ID_TAG = 0x08;
const ID_BYTES_MAX = 10;
/** Longest frame around a payload: its tag and length, the header's tag and length, the id. */
const OVERHEAD_BYTES_MAX = 3 + 5 + 2 + 1 + 1 + ID_BYTES_MAX;

/** Proposals in their order: first waiting to be put into the log, then in the log and waiting to be applied. */
export class ProposalQueue {
  #waiting: Proposal[] = [];
  #waitingBytes = 0;
  /** In the log, ascending by index; those before `#head` are done. */
  #inLog: Proposal[] = [];
  #head = 0;
  readonly #ids: RequestIdGenerator;
  readonly #headerSize: number;

  constructor(ids: RequestIdGenerator) {
    this.#ids = ids;
    const idBits = 48 + (32 - Math.clz32(ids.prefix));
    this.#headerSize = HEADER_TAG.length + 1 + 1 + Math.ceil(idBits / 7);
  }

  get waitingCount(): number {
    return this.#waiting.length;
  }

  /** Exact size of the log entry that a request becomes. */
  sizeOf(proposal: Proposal): number {
    const { length } = proposal.payload;
    return varintSize(proposal.op * 8) + varintSize(length) + length + this.#headerSize;
  }

  /** All that have no answer yet. */
  get pendingCount(): number {
    return this.#waiting.length + this.#inLog.length - this.#head;
  }

  get full(): boolean {
    return this.#waiting.length >= WAITING_MAX || this.#waitingBytes >= WAITING_BYTES_MAX;
  }

  add(proposal: Proposal): void {
    this.#waiting.push(proposal);
    this.#waitingBytes += proposal.payload.length;
  }

  /** Encodes everything that waits as the data of log entries, views into one buffer. */
  encodeWaiting(): Uint8Array[] {
    const buffer = Buffer.allocUnsafeSlow(this.#waitingBytes + this.#waiting.length * OVERHEAD_BYTES_MAX);
    const entries: Uint8Array[] = new Array(this.#waiting.length);
    let pos = 0;
    for (let i = 0; i < this.#waiting.length; i++) {
      const start = pos;
      pos = this.#encode(this.#waiting[i]!, buffer, pos);
      entries[i] = buffer.subarray(start, pos);
    }
    return entries;
  }

  /** InternalRaftRequest with the request first and the header last, which is the order of their field numbers. */
  #encode(proposal: Proposal, buffer: Buffer, pos: number): number {
    const { op, payload } = proposal;
    const afterHeader = op > 100;
    if (afterHeader) pos = this.#encodeHeader(buffer, pos);
    pos = writeVarint(buffer, pos, op * 8 + 2);
    pos = writeVarint(buffer, pos, payload.length);
    buffer.set(payload, pos);
    pos += payload.length;
    return afterHeader ? pos : this.#encodeHeader(buffer, pos);
  }

  #encodeHeader(buffer: Buffer, pos: number): number {
    const suffix = this.#ids.next();
    buffer[pos++] = HEADER_TAG[0];
    buffer[pos++] = HEADER_TAG[1];
    const lengthAt = pos++;
    buffer[pos++] = HEADER_ID_TAG;
    let low = suffix >>> 0;
    let high = ((this.#ids.prefix << 16) | Math.floor(suffix / 2 ** 32)) >>> 0;
    while (high !== 0 || low > 127) {
      buffer[pos++] = (low & 127) | 128;
      low = ((low >>> 7) | (high << 25)) >>> 0;
      high >>>= 7;
    }
    buffer[pos++] = low;
    buffer[lengthAt] = pos - lengthAt - 1;
    return pos;
  }

  /** What waited is now in the log, the last at `lastIndex`. */
  proposed(lastIndex: number, term: number): void {
    const batch = this.#waiting;
    let index = lastIndex - batch.length;
    for (const proposal of batch) {
      proposal.index = ++index;
      proposal.term = term;
    }
    if (this.#head === this.#inLog.length) {
      this.#inLog = batch;
      this.#head = 0;
    } else {
      this.#inLog = this.#inLog.slice(this.#head).concat(batch);
      this.#head = 0;
    }
    this.#waiting = [];
    this.#waitingBytes = 0;
  }

  /**
   * The proposal that made this entry; undefined when it is not from here. Proposals whose place in the log went to an
   * entry of another leader are refused with `replaced`.
   */
  take(index: number, term: number, replaced: EtcdError): Proposal | undefined {
    while (this.#head < this.#inLog.length) {
      const first = this.#inLog[this.#head]!;
      if (first.index > index) return undefined;
      this.#head++;
      if (first.index === index && first.term === term) return first;
      first.finish(replaced);
    }
    return undefined;
  }

  /** Refuses those that arrived before `beforeMs`. In the log they keep their place: they may still be applied. */
  expire(beforeMs: number, error: EtcdError): void {
    for (let i = this.#head; i < this.#inLog.length && this.#inLog[i]!.sinceMs < beforeMs; i++)
      this.#inLog[i]!.finish(error);
    let count = 0;
    while (count < this.#waiting.length && this.#waiting[count]!.sinceMs < beforeMs) {
      const proposal = this.#waiting[count++]!;
      this.#waitingBytes -= proposal.payload.length;
      proposal.finish(error);
    }
    if (count > 0) this.#waiting = this.#waiting.slice(count);
  }

  /** Refuses everything. */
  clear(error: EtcdError): void {
    this.expire(Number.POSITIVE_INFINITY, error);
    this.#inLog = [];
    this.#head = 0;
  }
}
