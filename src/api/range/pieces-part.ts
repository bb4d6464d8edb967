import type { AnswerSink } from "./answer.ts";
import type { MeasuredPart } from "./answer-work.ts";

/** A part of an answer produced in slices, each giving a piece or nothing yet, and held until the client reads it. */
export class PiecesPart implements MeasuredPart {
  bytes = 0;
  readonly #source: Iterator<Buffer | undefined>;
  readonly #pieces: (Buffer | undefined)[] = [];
  #next = 0;

  constructor(source: Iterator<Buffer | undefined>) {
    this.#source = source;
  }

  measure(): boolean {
    const { done, value } = this.#source.next();
    if (value !== undefined && value.length > 0) {
      this.#pieces.push(value);
      this.bytes += value.length;
    }
    return done === true;
  }

  write(sink: AnswerSink): boolean {
    if (this.#next < this.#pieces.length) {
      const piece = this.#pieces[this.#next]!;
      this.#pieces[this.#next++] = undefined;
      sink.take(piece);
    }
    return this.#next === this.#pieces.length;
  }
}
