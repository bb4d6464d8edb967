/**
 * The line of those who wait for a password to be hashed or compared, which takes a thread for a tenth of a second each. Turns
 * go round by the address that asks, and among those of one address by the connection, so that whoever asks a thousand times
 * delays nobody but himself. Who has gone meanwhile is passed over.
 */

/** Who asks; a call knows all of it. */
export interface HashAsker {
  readonly remoteAddress: string;
  /** Stands for the connection. */
  readonly socket: object;
  /** Nobody waits for the answer any more. */
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

/** The connections of an address that wait, the next one first. */
interface Line<T> {
  readonly byConnection: Map<object, Entry<T>[]>;
  count: number;
}

/** Those that this member asks itself, as tests do, are of one connection. */
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

  /** False when as many wait already as may, of all, of this address, or of this connection. */
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

  /** The next item whose turn it is; `dropped` gets those of who has gone. */
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
        // To the end of their lines.
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
