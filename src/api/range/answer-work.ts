import type { Allowance, Claim } from "../../base/allowance.ts";
import type { Slices } from "../../base/slices.ts";
import type { StepResult, Ticket, Work } from "../../base/turns.ts";
import { CompactedError } from "../../mvcc/model/types.ts";
import type { Pin } from "../../mvcc/store/pins.ts";
import type { UnaryCall } from "../../rpc/contract.ts";
import { type EtcdError, errors } from "../../server/contract/errors.ts";
import type { ReadSlice } from "../../server/contract/options.ts";
import { failWith, failWithAny } from "../calls/calls.ts";
import type { AnswerSink } from "./answer.ts";

/** A part of an answer whose length is only known after a first pass. */
export interface MeasuredPart {
  /** It reads one key at most, so one slice may have several such parts. */
  readonly isSingle?: boolean;
  readonly bytes: number;
  /** One slice of measuring; true when `bytes` is final. */
  measure(): boolean;
  /** One slice of writing the bytes; true when all are written. */
  write(sink: AnswerSink): boolean;
}

/** The composition of an answer. */
export interface AnswerPlan {
  /** For logs: the request's name. */
  readonly name: string;
  readonly parts: readonly MeasuredPart[];
  /** The complete answer in order, once all parts are measured: the bytes between them may contain their lengths. */
  assemble(): Slices<readonly (Buffer | MeasuredPart)[]>;
  /** Checks again, before the first byte is sent, whether the caller may have it. */
  check(): EtcdError | null;
  /** The request was applied: a failed answer must not look like a refusal. */
  readonly isApplied: boolean;
  readonly limits: ReadSlice;
  /** Keeps the parts readable; null when not needed. */
  readonly pin: Pin | null;
  /** It is sent, or has failed. */
  readonly onEnd?: ((success: boolean) => void) | undefined;
  /** Rows that the parts will hold at a time, charged to a shared allowance. */
  readonly memory: { readonly rows: number; readonly of: Allowance };
}

/** Parts of one key that one slice measures or writes. */
const SINGLES_AT_ONCE = 128;
/** Space before a collected answer for the prefix of a gRPC message. */
const HEADROOM_BYTES = 5;

/** Answers a call from a plan, in slices and as the client reads. Owns the plan's pin. */
export class AnswerWork implements Work, AnswerSink {
  readonly #call: UnaryCall;
  readonly #plan: AnswerPlan;
  #ticket: Ticket | null = null;
  #memory: Claim | null = null;
  #measured = 0;
  #assembly: Slices<readonly (Buffer | MeasuredPart)[]> | null = null;
  #parts: readonly (Buffer | MeasuredPart)[] | null = null;
  #next = 0;
  #bytesLeft = 0;
  #gathered: Buffer | null = null;
  #piece: Buffer | undefined;
  #pos = HEADROOM_BYTES;
  /** The client is paused. */
  #full = false;
  #over = false;
  #isSent = false;

  constructor(call: UnaryCall, plan: AnswerPlan) {
    this.#call = call;
    this.#plan = plan;
    call.onCancel = () => this.#end();
    if (plan.pin !== null) plan.pin.onRevoked = () => this.#ticket?.resume();
  }

  get name(): string {
    return this.#plan.name;
  }

  attach(ticket: Ticket): void {
    this.#ticket = ticket;
  }

  step(): StepResult {
    const { pin, parts } = this.#plan;
    if (this.#over) return "done";
    if (pin?.revoked) throw new CompactedError(pin.revision);
    pin?.touch();
    if (!this.#hasMemory()) return "wait";
    if (this.#measured < parts.length) {
      this.#measure();
      return "more";
    }
    if (this.#parts === null) {
      this.#assembly ??= this.#plan.assemble();
      const { done, value } = this.#assembly.next();
      if (done !== true) return "more";
      if (!this.#begin(value)) return "done";
    }
    this.#write();
    // The client may pause even after the last byte.
    if (this.#bytesLeft > 0) return this.#full ? "wait" : "more";
    const gathered = this.#gathered;
    if (gathered !== null) this.#call.respondOwned(gathered, HEADROOM_BYTES, this.#pos);
    this.#isSent = true;
    this.#end();
    return "done";
  }

  fail(error: unknown): void {
    const isLate = this.#plan.isApplied && error instanceof CompactedError;
    if (!this.#over) failWithAny(this.#call, isLate ? errors.appliedUnanswered : error);
    this.#end();
  }

  newPiece(): Buffer {
    // Collected bytes are copied, so one buffer serves all pieces.
    if (this.#gathered !== null) return (this.#piece ??= this.#call.newPiece());
    return this.#call.newPiece();
  }

  take(piece: Buffer): boolean {
    this.#bytesLeft -= piece.length;
    if (this.#gathered !== null) {
      this.#pos += piece.copy(this.#gathered, this.#pos);
      return true;
    }
    if (!this.#over && !this.#call.writePiece(piece)) this.#full = true;
    return !this.#full;
  }

  #measure(): void {
    const { parts, limits } = this.#plan;
    let bytes = 0;
    for (let left = SINGLES_AT_ONCE; left > 0 && bytes < limits.bytes && this.#measured < parts.length; left--) {
      const part = parts[this.#measured]!;
      if (part.measure()) this.#measured++;
      if (part.isSingle !== true) return;
      bytes += part.bytes;
    }
  }

  #write(): void {
    const parts = this.#parts!;
    const { bytes } = this.#plan.limits;
    const before = this.#bytesLeft;
    let left = SINGLES_AT_ONCE;
    while (this.#next < parts.length && !this.#full && before - this.#bytesLeft < bytes) {
      const part = parts[this.#next]!;
      if (part instanceof Uint8Array) {
        this.#next++;
        if (part.length > 0) this.take(part);
      } else {
        if (part.write(this)) this.#next++;
        if (part.isSingle !== true || --left === 0) return;
      }
    }
  }

  #hasMemory(): boolean {
    const { rows, of } = this.#plan.memory;
    if (rows === 0) return true;
    this.#memory ??= of.claim(rows, () => this.#ticket?.resume());
    return this.#memory.granted;
  }

  /** False when an error was sent instead of an answer. */
  #begin(parts: readonly (Buffer | MeasuredPart)[]): boolean {
    const refusal = this.#plan.check();
    if (refusal !== null) {
      failWith(this.#call, refusal);
      this.#end();
      return false;
    }
    this.#parts = parts;
    let bytes = 0;
    for (const part of parts) bytes += part instanceof Uint8Array ? part.length : part.bytes;
    this.#bytesLeft = bytes;
    if (bytes <= this.#plan.limits.bytesGathered) {
      this.#gathered = Buffer.allocUnsafeSlow(HEADROOM_BYTES + bytes);
      return true;
    }
    if (!this.#call.respondInPieces(bytes)) {
      this.#end();
      return false;
    }
    this.#call.onDrain = () => {
      this.#full = false;
      this.#ticket?.resume();
    };
    return true;
  }

  #end(): void {
    if (this.#over) return;
    this.#over = true;
    this.#plan.onEnd?.(this.#isSent);
    const { pin } = this.#plan;
    if (pin !== null) pin.onRevoked = null;
    pin?.release();
    this.#memory?.release();
    this.#ticket?.cancel();
  }
}
