/** What the builders have in common. */
export const zeroKey: Buffer = Buffer.from([0]);
export const emptyKey: Buffer = Buffer.from([]);

export function toBuffer(input: string | Buffer | number): Buffer {
  return Buffer.isBuffer(input) ? input : Buffer.from(`${input}`);
}

/** The end of the range of all keys that begin with this. */
export function endRangeForPrefix(prefix: Buffer): Buffer {
  for (let i = prefix.length - 1; i >= 0; i--) {
    if (prefix[i]! === 0xff) continue;
    const end = Buffer.from(prefix.subarray(0, i + 1));
    end[i] = end[i]! + 1;
    return end;
  }
  return zeroKey;
}

/** Puts the prefix of a namespace before keys and takes it off. */
export class NSApplicator {
  static readonly default = new NSApplicator(emptyKey);
  readonly #prefix: Buffer;
  readonly #end: Buffer;

  constructor(prefix: Buffer) {
    this.#prefix = prefix;
    this.#end = endRangeForPrefix(prefix);
  }

  applyKey(key: Buffer = emptyKey): Buffer {
    return this.#prefix.length === 0 ? key : Buffer.concat([this.#prefix, key]);
  }

  applyRangeEnd(end: Buffer = emptyKey): Buffer {
    if (this.#prefix.length === 0 || end.length === 0) return end;
    return end.equals(zeroKey) ? this.#end : Buffer.concat([this.#prefix, end]);
  }

  applyToRequest<T extends { key?: Buffer; range_end?: Buffer }>(request: T): T {
    if (this.#prefix.length === 0) return request;
    const { key, range_end: end } = request;
    const isAll = end?.equals(zeroKey) && key?.equals(zeroKey);
    const prefixed = { ...request, key: isAll ? this.#prefix : this.applyKey(key) };
    return end === undefined || end.length === 0 ? prefixed : { ...prefixed, range_end: this.applyRangeEnd(end) };
  }

  unprefix(key: Buffer): Buffer {
    return key.subarray(this.#prefix.length);
  }
}

/** Something that begins when it is awaited. */
export abstract class PromiseWrap<T> implements PromiseLike<T> {
  // biome-ignore lint/suspicious/noThenProperty: builders are awaited
  then<R = T, V = never>(
    onFulfilled?: ((value: T) => R | PromiseLike<R>) | null,
    onRejected?: ((reason: unknown) => V | PromiseLike<V>) | null,
  ): Promise<R | V> {
    return this.createPromise().then(onFulfilled, onRejected);
  }

  catch<R>(onRejected: (reason: unknown) => R | PromiseLike<R>): Promise<T | R> {
    return this.createPromise().catch(onRejected);
  }

  protected abstract createPromise(): Promise<T>;
}
