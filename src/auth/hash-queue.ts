/**
 * The queue of passwords to hash or compare, each of which takes a thread for a tenth of a second. Turns rotate among
 * addresses, and within an address among connections, so that a client with a thousand requests delays only itself.
 * Requests of clients that have gone are skipped.
 */

/** The client; a call has all of these. */
export interface HashAsker {
  readonly remoteAddress: string;
  /** Identifies the connection. */
  readonly socket: object;
  /** The client no longer waits for the answer. */
  readonly cancelled: boolean;
}

export interface HashQueueLimits {
  readonly all: number;
  readonly ofAddress: number;
  readonly ofConnection: number;
}

interface Entry<T> {
  readonly item: T;
  readonly asker: HashAsker | undefined;
}

/** The waiting connections of an address, the next one first. */
interface Line<T> {
  readonly byConnection: Map<object, Entry<T>[]>;
  count: number;
}

/** Requests of this member itself, as in tests, share one connection. */
const OWN = {};

export class HashQueue<T> {
  readonly #limits: HashQueueLimits;
  readonly #lines = new Map<string, Line<T>>();
  #count = 0;

  constructor(limits: HashQueueLimits) {
    this.#limits = limits;
  }

  get length(): number {
    return this.#count;
  }

  /** False when too many wait already: in total, for this address, or for this connection. */
  push(item: T, asker?: HashAsker): boolean {
    const { all, ofAddress, ofConnection } = this.#limits;
    const address = asker?.remoteAddress ?? "";
    const connection = asker?.socket ?? OWN;
    const line = this.#lines.get(address) ?? { byConnection: new Map<object, Entry<T>[]>(), count: 0 };
    const entries = line.byConnection.get(connection) ?? [];
    if (this.#count >= all || line.count >= ofAddress || entries.length >= ofConnection) return false;
    entries.push({ item, asker });
    line.byConnection.set(connection, entries);
    line.count++;
    this.#lines.set(address, line);
    this.#count++;
    return true;
  }

  /** The next item; `dropped` gets those of clients that have gone. */
  take(dropped: (item: T) => void): T | undefined {
    for (;;) {
      const entry = this.#next();
      if (entry === undefined) return undefined;
      if (entry.asker?.cancelled !== true) return entry.item;
      dropped(entry.item);
    }
  }

  #next(): Entry<T> | undefined {
    for (const [address, line] of this.#lines) {
      for (const [connection, entries] of line.byConnection) {
        const entry = entries.shift()!;
        this.#count--;
        line.count--;
        // Moves both to the end of their queues.
        line.byConnection.delete(connection);
        if (entries.length > 0) line.byConnection.set(connection, entries);
        this.#lines.delete(address);
        if (line.count > 0) this.#lines.set(address, line);
        return entry;
      }
    }
    return undefined;
  }
}
