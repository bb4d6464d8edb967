/** How many bytes of requests have no answer yet: a limit on what a client can be made to hold. */
import { Code } from "../base/grpc-codes.ts";
import { RpcError } from "./rpc-error.ts";

export class Pending {
  bytes = 0;
  readonly #bytesMax: number;
  readonly #messageBytesMax: number;
  #waiting: (() => void)[] = [];

  constructor(bytesMax: number, messageBytesMax: number) {
    this.#bytesMax = bytesMax;
    this.#messageBytesMax = messageBytesMax;
  }

  /** Undefined when a request of this size may be made: then it counts until `release`. */
  admit(bytes: number): RpcError | undefined {
    if (bytes > this.#messageBytesMax) {
      const text = `the request has ${bytes} bytes, more than the ${this.#messageBytesMax} of requestBytesMax`;
      return new RpcError(Code.RESOURCE_EXHAUSTED, text);
    }
    // One alone is always let through.
    if (this.bytes > 0 && this.bytes + bytes > this.#bytesMax) {
      const text = `${this.bytes} bytes of requests have no answer yet: await some of them, or client.drained(), before more`;
      return new RpcError(Code.RESOURCE_EXHAUSTED, text);
    }
    this.bytes += bytes;
    return undefined;
  }

  release(bytes: number): void {
    this.bytes -= bytes;
    if (this.#waiting.length > 0 && this.#isLow) this.end();
  }

  drained(): Promise<void> {
    return this.#isLow ? Promise.resolve() : new Promise((resolve) => this.#waiting.push(resolve));
  }

  /** Nothing is waited for any more. */
  end(): void {
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const resolve of waiting) resolve();
  }

  get #isLow(): boolean {
    return this.bytes < this.#bytesMax / 4;
  }
}
