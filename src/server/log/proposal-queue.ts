import { NOBODY } from "../../auth/auth-info.ts";
import { invariant } from "../../base/fatal.ts";
import { varintSize, writeVarint } from "../../base/varint.ts";
import type { EtcdError } from "../contract/errors.ts";
import type { Op } from "./op.ts";
import type { QueuedProposal } from "./proposal.ts";
import type { RequestIdGenerator } from "./request-id.ts";

/** Bytes that may wait to be proposed, and requests without an answer: beyond, clients are told to slow down. */
const WAITING_BYTES_MAX = 512 * 1024 * 1024;
const PENDING_MAX = 100_000;
/** Entries appended and applied as one batch: a few milliseconds. */
const BATCH_ENTRIES_MAX = 1024;
const BATCH_BYTES_MAX = 4 * 1024 * 1024;

/** Tag of `header` (field 100, length-delimited) and of RequestHeader.ID in InternalRaftRequest. */
const HEADER_TAG = [0xa2, 0x06] as const;
const HEADER_ID_TAG = 0x08;
const ID_BYTES_MAX = 10;
/** Longest framing of a payload: its tag and length, the header's tag and length, the id. */
const OVERHEAD_BYTES_MAX = 3 + 5 + 2 + 5 + 1 + ID_BYTES_MAX;

/** The error of an unanswered request that arrived at this time. */
export type ExpiryError = (sinceMs: number, op: Op) => EtcdError;

/**
 * Proposals in order: first waiting to be appended to the log, then waiting to be applied. Those that this member
 * appended as leader are identified by their log position; those that it forwarded, by their request id.
 */
export class ProposalQueue {
  #waiting: QueuedProposal[] = [];
  #waitingBytes = 0;
  /** Proposals at the front of the queue encoded by `encodeWaiting`. */
  #batchCount = 0;
  /** Some waiting proposals may be bound to a term. */
  #hasBound = false;
  /** In the log, in order of creation: ascending by index within a term; those before `#head` are done. */
  #inLog: QueuedProposal[] = [];
  #head = 0;
  /** Forwarded to the leader, by the lower 48 bits of the request id, oldest first. */
  readonly #forwarded = new Map<number, QueuedProposal>();
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

  /** Exact size of the log entry of a request. */
  sizeOf(proposal: QueuedProposal): number {
    const { length } = proposal.payload;
    const userSize = proposal.user === NOBODY ? 0 : userSizeOf(proposal, this.#headerSize);
    return varintSize(proposal.op * 8) + varintSize(length) + length + this.#headerSize + userSize;
  }

  /** Proposals without an answer yet. */
  get pendingCount(): number {
    return this.#waiting.length + this.#inLog.length - this.#head + this.#forwarded.size;
  }

  get full(): boolean {
    return this.pendingCount >= PENDING_MAX || this.#waitingBytes >= WAITING_BYTES_MAX;
  }

  add(proposal: QueuedProposal): void {
    this.#waiting.push(proposal);
    this.#waitingBytes += bytesOf(proposal);
    if (proposal.leaderTerm !== 0) this.#hasBound = true;
  }

  /**
   * Fails waiting proposals bound to another term than `leadTerm`, the term in which this member is leader (0 for
   * none).
   */
  refuseOutdated(leadTerm: number, error: EtcdError): void {
    if (!this.#hasBound) return;
    const isOutdated = ({ leaderTerm }: QueuedProposal): boolean => leaderTerm !== 0 && leaderTerm !== leadTerm;
    const outdated = this.#waiting.filter(isOutdated);
    if (outdated.length === 0) return;
    this.#waiting = this.#waiting.filter((proposal) => !isOutdated(proposal));
    for (const proposal of outdated) {
      this.#waitingBytes -= bytesOf(proposal);
      proposal.refuse(error);
    }
  }

  /** Encodes waiting proposals, at most one batch, as the data of log entries; they are views into one buffer. */
  encodeWaiting(): Uint8Array[] {
    let count = 0;
    let bytes = 0;
    while (count < this.#waiting.length && count < BATCH_ENTRIES_MAX && bytes < BATCH_BYTES_MAX) {
      bytes += bytesOf(this.#waiting[count++]!);
    }
    this.#batchCount = count;
    const buffer = Buffer.allocUnsafeSlow(bytes + count * OVERHEAD_BYTES_MAX);
    const entries: Uint8Array[] = new Array(count);
    let pos = 0;
    for (let i = 0; i < count; i++) {
      const start = pos;
      pos = this.#encode(this.#waiting[i]!, buffer, pos);
      entries[i] = buffer.subarray(start, pos);
    }
    return entries;
  }

  /** InternalRaftRequest with the request first and the header last, in order of field numbers. */
  #encode(proposal: QueuedProposal, buffer: Buffer, pos: number): number {
    const { op, payload } = proposal;
    const afterHeader = op > 100;
    proposal.id = this.#ids.next();
    if (afterHeader) pos = encodeHeader(buffer, pos, this.#ids.prefix, proposal);
    pos = writeVarint(buffer, pos, op * 8 + 2);
    pos = writeVarint(buffer, pos, payload.length);
    buffer.set(payload, pos);
    pos += payload.length;
    return afterHeader ? pos : encodeHeader(buffer, pos, this.#ids.prefix, proposal);
  }

  /** The last encoded batch is now in the log, ending at `lastIndex`. */
  proposed(lastIndex: number, term: number): void {
    const batch = this.#takeBatch();
    let index = lastIndex - batch.length;
    const last = this.#inLog[this.#inLog.length - 1];
    const isBehind = last === undefined || last.term < term || (last.term === term && last.index <= index);
    invariant(isBehind, "proposals are in the log in the order in which they were made", last?.index, index + 1);
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
  }

  /** The last encoded batch was sent to the leader: it may get into the log, or be lost. */
  forwarded(): void {
    for (const proposal of this.#takeBatch()) if (!proposal.answered) this.#forwarded.set(proposal.id, proposal);
  }

  #takeBatch(): QueuedProposal[] {
    const waiting = this.#waiting;
    if (this.#batchCount === waiting.length) {
      this.#waiting = [];
      this.#waitingBytes = 0;
      this.#hasBound = false;
      return waiting;
    }
    const batch = waiting.slice(0, this.#batchCount);
    this.#waiting = waiting.slice(this.#batchCount);
    for (const proposal of batch) this.#waitingBytes -= bytesOf(proposal);
    return batch;
  }

  get hasForwarded(): boolean {
    return this.#forwarded.size > 0;
  }

  /** The proposal forwarded under this id. */
  takeForwarded(id: number): QueuedProposal | undefined {
    const proposal = this.#forwarded.get(id);
    if (proposal !== undefined) this.#forwarded.delete(id);
    return proposal;
  }

  /** A snapshot replaced the entries up to `index`: whether a proposal among them was applied is unknown. */
  overtaken(index: number, errorOf: ExpiryError): void {
    while (this.#head < this.#inLog.length && this.#inLog[this.#head]!.index <= index) {
      const proposal = this.#inLog[this.#head++]!;
      proposal.refuse(errorOf(proposal.sinceMs, proposal.op));
    }
  }

  /**
   * The local proposal that made this entry; undefined for another member's. Proposals whose log position went to an
   * entry of another leader fail with `replaced`.
   */
  take(index: number, term: number, replaced: EtcdError): QueuedProposal | undefined {
    while (this.#head < this.#inLog.length) {
      const first = this.#inLog[this.#head]!;
      // Terms never decrease along the log: a proposal of an earlier term after this entry has lost its position too.
      if (first.index > index && first.term >= term) return undefined;
      this.#head++;
      if (first.index === index && first.term === term) return first;
      first.refuse(replaced);
    }
    return undefined;
  }

  /**
   * Fails proposals that arrived before `beforeMs`. Those in the log keep their position: they may still be applied.
   */
  expire(beforeMs: number, errorOf: ExpiryError): void {
    for (let i = this.#head; i < this.#inLog.length && this.#inLog[i]!.sinceMs < beforeMs; i++) {
      const proposal = this.#inLog[i]!;
      proposal.refuse(errorOf(proposal.sinceMs, proposal.op));
    }
    for (const [id, proposal] of this.#forwarded) {
      if (proposal.sinceMs >= beforeMs) break;
      this.#forwarded.delete(id);
      proposal.refuse(errorOf(proposal.sinceMs, proposal.op));
    }
    let count = 0;
    while (count < this.#waiting.length && this.#waiting[count]!.sinceMs < beforeMs) {
      const proposal = this.#waiting[count++]!;
      this.#waitingBytes -= bytesOf(proposal);
      proposal.refuse(errorOf(proposal.sinceMs, proposal.op));
    }
    if (count > 0) this.#waiting = this.#waiting.slice(count);
  }

  /** Fails all proposals. */
  clear(error: EtcdError): void {
    this.expire(Number.POSITIVE_INFINITY, () => error);
    this.#inLog = [];
    this.#head = 0;
  }
}

/** A proposal's own bytes; the rest of its entry is limited separately. */
function bytesOf({ payload, user }: QueuedProposal): number {
  return user === NOBODY ? payload.length : payload.length + user.headerFields.length;
}

/** Bytes that the user adds to an entry's header, including a longer length. */
function userSizeOf({ user }: QueuedProposal, headerSize: number): number {
  const { length } = user.headerFields;
  return length + varintSize(headerSize - HEADER_TAG.length - 1 + length) - 1;
}

function encodeHeader(buffer: Buffer, pos: number, prefix: number, proposal: QueuedProposal): number {
  const { id: suffix, user } = proposal;
  buffer[pos++] = HEADER_TAG[0];
  buffer[pos++] = HEADER_TAG[1];
  const lengthAt = pos++;
  buffer[pos++] = HEADER_ID_TAG;
  let low = suffix >>> 0;
  let high = ((prefix << 16) | Math.floor(suffix / 2 ** 32)) >>> 0;
  while (high !== 0 || low > 127) {
    buffer[pos++] = (low & 127) | 128;
    low = ((low >>> 7) | (high << 25)) >>> 0;
    high >>>= 7;
  }
  buffer[pos++] = low;
  const length = pos - lengthAt - 1;
  buffer[lengthAt] = length;
  return user === NOBODY ? pos : appendUser(buffer, lengthAt, length, user.headerFields);
}

/** Adds the user to a header written up to the end of its id. */
function appendUser(buffer: Buffer, lengthAt: number, idLength: number, fields: Uint8Array): number {
  const length = idLength + fields.length;
  const shift = varintSize(length) - 1;
  buffer.copyWithin(lengthAt + 1 + shift, lengthAt + 1, lengthAt + 1 + idLength);
  const pos = writeVarint(buffer, lengthAt, length) + idLength;
  buffer.set(fields, pos);
  return pos + fields.length;
}
