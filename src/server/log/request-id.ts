/**
 * Ids of requests, unique over members and restarts, as etcd makes them: 16 bits of the member id, 40 bits of the start
 * time in milliseconds, and a counter in the lowest bits that carries into them. The lower 48 bits are a number, the
 * upper 16 fixed.
 */
export class RequestIdGenerator {
  /** The upper 16 bits. */
  readonly prefix: number;
  #suffix: number;

  constructor(memberId: bigint, wallMs: number) {
    this.prefix = Number(memberId & 0xffffn);
    this.#suffix = (Math.floor(wallMs) % 2 ** 40) * 256;
  }

  /** The lower 48 bits of the next id. */
  next(): number {
    this.#suffix = (this.#suffix + 1) % 2 ** 48;
    return this.#suffix;
  }

  nextBig(): bigint {
    return (BigInt(this.prefix) << 48n) | BigInt(this.next());
  }
}
