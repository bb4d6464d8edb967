import type * as http from "node:http";
import type { Clock } from "../base/clock.ts";
import type { ByteBudget } from "./byte-budget.ts";

/** Reads a request body piece by piece, on demand. */
export class PieceReader {
  readonly #request: http.IncomingMessage;
  readonly #clock: Clock;
  readonly #timeoutMs: number;
  #rest: Buffer | null = null;
  #wake: (() => void) | null = null;
  /** Bytes returned so far. */
  bytes = 0;

  /** Each requested piece must arrive within `timeoutMs`. */
  constructor(request: http.IncomingMessage, clock: Clock, timeoutMs: number) {
    this.#request = request;
    this.#clock = clock;
    this.#timeoutMs = timeoutMs;
    const wake = (): void => this.#wake?.();
    request.pause();
    for (const event of ["readable", "end", "error", "close"]) request.on(event, wake);
  }

  /** The next piece, or undefined at the end. Rejects when the body is cut off or too slow. */
  async next(): Promise<Buffer | undefined> {
    const piece = this.#rest ?? (await this.#read());
    this.#rest = null;
    this.bytes += piece?.length ?? 0;
    return piece;
  }

  /**
   * Exactly `length` bytes. Memory is allocated as they arrive, and charged to the budget until they are complete.
   * Rejects when the body ends early or the budget is exhausted.
   */
  async exactly(length: number, budget?: ByteBudget): Promise<Buffer> {
    const parts: Buffer[] = [];
    let taken = 0;
    try {
      while (taken < length) {
        const piece = await this.next();
        if (piece === undefined) throw new Error(taken === 0 ? "EOF" : "unexpected EOF");
        const part = piece.subarray(0, length - taken);
        taken += part.length;
        budget?.take(part.length);
        parts.push(part);
        if (part.length < piece.length) {
          this.#rest = piece.subarray(part.length);
          this.bytes -= this.#rest.length;
        }
      }
    } finally {
      budget?.giveBack(taken);
    }
    return parts.length === 1 ? parts[0]! : Buffer.concat(parts);
  }

  async #read(): Promise<Buffer | undefined> {
    const request = this.#request;
    for (;;) {
      const piece = request.read() as Buffer | null;
      if (piece !== null) return piece;
      if (request.readableEnded) return undefined;
      if (request.destroyed) throw new Error(request.errored?.message ?? "unexpected EOF");
      await this.#more();
    }
  }

  #more(): Promise<void> {
    return new Promise((resolve, reject) => {
      const timer = this.#clock.after(this.#timeoutMs, () => {
        this.#wake = null;
        reject(new Error("i/o timeout: the sender has stopped sending"));
      });
      this.#wake = () => {
        timer.cancel();
        this.#wake = null;
        resolve();
      };
    });
  }
}
