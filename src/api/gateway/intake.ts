/**
 * Reads the body of a gateway request into messages. Bounded in time: a large piece waits for its turn. Bounded in
 * memory: back-pressure stops a client that sends too fast, and all bodies together have a limit.
 */
import type { Clock } from "../../base/clock.ts";
import type { Owner, Turns, Work } from "../../base/turns.ts";
import type { HttpBody } from "../http/body.ts";
import type { Decoded, MessageDecoder } from "./decode.ts";
import { JsonSyntaxError } from "./json-errors.ts";

/** A piece up to this size, like a small request, is read on arrival. */
const AT_ONCE_BYTES = 16 * 1024;
/** Time, or amount of JSON, per slice. The first bodies of a process take ten times as long as later ones. */
const SLICE_MS = 0.7;
const SLICE_BYTES = 64 * 1024;
/** Bytes between two reads of the clock. */
const STRETCH_BYTES = 8 * 1024;
/** From this size on, the client is paused. */
const QUEUE_BYTES_HIGH = 128 * 1024;
/** A request holding less than this is never dropped because of others. */
const FREE_BYTES = 64 * 1024;

/** The memory held by all bodies being received. */
export class IntakeBudget {
  readonly #bytesMax: number;
  #held = 0;
  /** Oldest first. */
  readonly #intakes = new Map<Intake, number>();

  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax;
  }

  get heldBytes(): number {
    return this.#held;
  }

  /**
   * Records what one body holds now. If the total is too large, the oldest large one is dropped: an honest client is
   * fast.
   */
  note(intake: Intake, bytes: number): void {
    this.#held += bytes - (this.#intakes.get(intake) ?? 0);
    this.#intakes.set(intake, bytes);
    while (this.#held > this.#bytesMax) {
      const oldest = this.#oldestWithMuch();
      if (oldest === undefined) return;
      this.forget(oldest);
      oldest.evict();
    }
  }

  #oldestWithMuch(): Intake | undefined {
    for (const [intake, held] of this.#intakes) if (held > FREE_BYTES) return intake;
    return undefined;
  }

  forget(intake: Intake): void {
    this.#held -= this.#intakes.get(intake) ?? 0;
    this.#intakes.delete(intake);
  }
}

export interface IntakeOptions {
  readonly body: HttpBody;
  /** A decoder for the next value. */
  readonly decoder: () => MessageDecoder;
  /** Values follow each other. Otherwise data after the first value is ignored. */
  readonly isStream: boolean;
  /** Maximum bytes of text of one value. */
  readonly textBytesMax: number;
  readonly clock: Clock;
  readonly turns: Turns;
  readonly owner: Owner;
  readonly budget: IntakeBudget;
  readonly name: string;
}

export interface IntakeSink {
  /** A value is complete. */
  value(decoded: Decoded): void;
  /** The body has ended; nothing follows. */
  ended(): void;
  /** The input is not JSON; nothing follows. */
  malformed(error: string): void;
  /** One value has this much text, and continues; nothing follows. */
  endless(bytes: number): void;
  /** Too much is being received from all clients; nothing follows. */
  crowded(): void;
  /** A bug of this server; nothing follows. */
  broken(error: unknown): void;
}

export class Intake {
  readonly #options: IntakeOptions;
  readonly #sink: IntakeSink;
  #decoder: MessageDecoder;
  #values = 0;
  /** Text bytes of the current value. */
  #textBytes = 0;
  /** Size of the only value, which waits for the end of the body. */
  #keptBytes = 0;
  #queue: Buffer[] = [];
  #queueBytes = 0;
  /** Consumed bytes of the first queued piece. */
  #read = 0;
  #isComplete = false;
  #isOver = false;
  /** The receiver of the messages is paused. */
  #isPaused = false;
  #isWorking = false;
  #isParsing = false;
  #isHeldBack = false;

  constructor(options: IntakeOptions, sink: IntakeSink) {
    this.#options = options;
    this.#sink = sink;
    this.#decoder = options.decoder();
  }

  start(): void {
    const mayRest = this.#options.isStream;
    this.#options.body.read({ piece: (bytes) => this.#piece(bytes), end: () => this.#complete(), mayRest });
  }

  /** The rest is not needed. */
  stop(): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#queue = [];
    this.#options.budget.forget(this);
    // Further input is read and dropped.
    this.#hold(false);
  }

  pause(): void {
    this.#isPaused = true;
    this.#flow();
  }

  resume(): void {
    this.#isPaused = false;
    // A few messages that arrived together are read together, regardless of pauses in between.
    if (!this.#isParsing && this.#queueBytes <= AT_ONCE_BYTES) while (this.#step());
    this.#schedule();
    this.#flow();
  }

  /** Called by the budget. */
  evict(): void {
    this.stop();
    this.#sink.crowded();
  }

  // ---- internal

  #piece(bytes: Buffer): void {
    if (this.#isOver) return;
    if (this.#queue.length === 0 && !this.#isPaused && bytes.length <= AT_ONCE_BYTES) {
      const read = this.#parse(bytes, 0, bytes.length);
      if (read < bytes.length && !this.#isOver) this.#enqueue(bytes.subarray(read));
    } else this.#enqueue(bytes);
    this.#note();
  }

  #complete(): void {
    this.#isComplete = true;
    if (this.#queue.length === 0 && !this.#isPaused) this.#end();
  }

  #enqueue(bytes: Buffer): void {
    this.#queue.push(bytes);
    this.#queueBytes += bytes.length;
    this.#schedule();
    this.#flow();
  }

  #schedule(): void {
    if (this.#isWorking || this.#isOver || this.#isPaused) return;
    if (this.#queue.length === 0) {
      if (this.#isComplete) this.#end();
      return;
    }
    const work: Work = {
      name: this.#options.name,
      step: () => {
        this.#isWorking = this.#step();
        return this.#isWorking ? "more" : "done";
      },
      fail: (error) => this.#failed(error),
    };
    this.#isWorking = this.#options.turns.add(this.#options.owner, work) !== undefined;
    if (!this.#isWorking) this.evict();
  }

  /** True when there is more to do. */
  #step(): boolean {
    const first = this.#queue[0];
    if (this.#isOver || this.#isPaused || first === undefined) return false;
    const { clock } = this.#options;
    const untilMs = clock.nowMs() + SLICE_MS;
    const from = this.#read;
    const end = Math.min(first.length, from + SLICE_BYTES);
    do this.#read = this.#parse(first, this.#read, Math.min(end, this.#read + STRETCH_BYTES));
    while (this.#read < end && !this.#isOver && !this.#isPaused && clock.nowMs() < untilMs);
    this.#queueBytes -= this.#read - from;
    if (this.#isOver) return false;
    if (this.#read === first.length) {
      this.#queue.shift();
      this.#read = 0;
    }
    this.#note();
    this.#flow();
    if (this.#queue.length > 0 && !this.#isPaused) return true;
    if (this.#isComplete && !this.#isPaused) this.#end();
    return false;
  }

  /** Reads values until the piece is consumed or the receiver pauses; returns where it stopped. */
  #parse(bytes: Buffer, start: number, end: number): number {
    const { isStream, textBytesMax } = this.#options;
    let pos = start;
    this.#isParsing = true;
    try {
      while (pos < end && !this.#isOver && !this.#isPaused) {
        if (this.#values > 0 && !isStream) return end;
        const from = pos;
        pos = this.#decoder.feed(bytes, pos, end);
        this.#textBytes += pos - from;
        if (this.#decoder.done) this.#valueDone();
        else if (this.#textBytes > textBytesMax) {
          this.stop();
          this.#sink.endless(this.#textBytes);
        }
      }
    } catch (error) {
      this.#failed(error);
    }
    this.#isParsing = false;
    return pos;
  }

  #valueDone(): void {
    const decoded = this.#decoder.result();
    this.#decoder = this.#options.decoder();
    this.#textBytes = 0;
    this.#values++;
    if (!this.#options.isStream && decoded.kind === "message") this.#keptBytes = decoded.message.length;
    this.#sink.value(decoded);
  }

  #end(): void {
    if (this.#isOver) return;
    try {
      if ((this.#values === 0 || this.#options.isStream) && this.#decoder.end()) this.#valueDone();
    } catch (error) {
      return this.#failed(error);
    }
    if (this.#isOver) return;
    this.stop();
    this.#sink.ended();
  }

  #failed(error: unknown): void {
    this.stop();
    if (error instanceof JsonSyntaxError) this.#sink.malformed(error.message);
    else this.#sink.broken(error);
  }

  #note(): void {
    if (!this.#isOver) this.#options.budget.note(this, this.#queueBytes + this.#decoder.heldBytes + this.#keptBytes);
  }

  /** Pauses or resumes the client. */
  #flow(): void {
    if (!this.#isOver) this.#hold(this.#queueBytes > QUEUE_BYTES_HIGH || (this.#isPaused && this.#queueBytes > 0));
  }

  #hold(isHeldBack: boolean): void {
    if (isHeldBack === this.#isHeldBack) return;
    this.#isHeldBack = isHeldBack;
    if (isHeldBack) this.#options.body.pause();
    else this.#options.body.resume();
  }
}
