/**
 * Linearizable reads without a log entry: the leader notes its commit index for each request and then confirms, by a
 * round of heartbeats, that it is still the leader.
 *
 * Requests are numbered in order of arrival. A heartbeat carries the number of the last one; an echo from a quorum
 * confirms that request and all before it, so one round serves any number of reads. Source: Raft thesis, section 6.4.
 */
import { EMPTY_BYTES } from "../base/protobuf.ts";
import type { Message } from "../proto/raftpb.ts";
import type { JointConfig } from "./quorum/joint.ts";
import type { AckedIndexer } from "./quorum/majority.ts";

/** Reads waiting for confirmation; beyond it they are dropped, and clients retry. */
export const UNCONFIRMED_READS_MAX = 16_384;

/** `lease-based` skips the round of heartbeats and trusts the leader's lease: clocks must not drift. */
export type ReadOnlyOption = "safe" | "lease-based";

/** The answer to a read-index request: the read may be served once everything up to `index` is applied. */
export interface ReadState {
  readonly index: number;
  readonly requestCtx: Uint8Array;
}

export interface ReadIndexRequest {
  readonly request: Message;
  /** Commit index when the request arrived. */
  readonly index: number;
}

const CONTEXT_BYTES = 8;

export class ReadOnly implements AckedIndexer {
  readonly option: ReadOnlyOption;
  #unconfirmed: ReadIndexRequest[] = [];
  #confirmedCount = 0;
  /** Number of the last request that each node echoed. */
  readonly #acks = new Map<bigint, number>();

  constructor(option: ReadOnlyOption) {
    this.option = option;
  }

  get full(): boolean {
    return this.#unconfirmed.length >= UNCONFIRMED_READS_MAX;
  }

  add(commit: number, request: Message): void {
    this.#unconfirmed.push({ request, index: commit });
  }

  /** What heartbeats carry: the number of the last waiting request, or nothing. Little-endian, 8 bytes. */
  heartbeatContext(): Uint8Array {
    if (this.#unconfirmed.length === 0) return EMPTY_BYTES;
    const context = new Uint8Array(CONTEXT_BYTES);
    new DataView(context.buffer).setBigUint64(0, BigInt(this.#confirmedCount + this.#unconfirmed.length), true);
    return context;
  }

  receiveAck(from: bigint, context: Uint8Array): void {
    if (context.length !== CONTEXT_BYTES) return;
    const view = new DataView(context.buffer, context.byteOffset, CONTEXT_BYTES);
    const number = Number(view.getBigUint64(0, true));
    if (number > this.#confirmedCount + this.#unconfirmed.length) return;
    if (number > (this.#acks.get(from) ?? 0)) this.#acks.set(from, number);
  }

  ackedIndex(id: bigint): number | undefined {
    return this.#acks.get(id);
  }

  /** Removes and returns the requests that a quorum has confirmed by now. */
  advance(voters: JointConfig): ReadIndexRequest[] {
    const confirmed = voters.committedIndex(this);
    // Without voters nothing is confirmed.
    if (confirmed <= this.#confirmedCount || confirmed === Number.POSITIVE_INFINITY) return [];
    const released = this.#unconfirmed.splice(0, confirmed - this.#confirmedCount);
    this.#confirmedCount = confirmed;
    return released;
  }
}
