import { messageOf } from "../../base/errors.ts";
import type { Logger } from "../../base/log.ts";
import { formatId } from "../../membership/member.ts";
import type { Message } from "../../proto/raftpb.ts";
import type { SnapDbWriter, Snapshotter } from "../../wal/snapshotter.ts";
import type { DatabaseSink } from "../contract/network.ts";

/** Databases received at a time: a leader sends one, and another leader may start before that ends. */
const RECEIVING_MAX = 4;

/** Stores databases received with snapshots, as `<index>.snap.db`, and then gives the snapshot to raft. */
export class SnapshotReceiver {
  readonly #snapshotter: Snapshotter;
  /** 0 for no limit. */
  readonly #bytesMax: number;
  readonly #check: (path: string) => Promise<void>;
  readonly #logger: Logger;
  readonly #onReceived: (message: Message) => void;
  #receiving = 0;

  constructor(options: {
    snapshotter: Snapshotter;
    bytesMax: number;
    /** Rejects when the file at this path is not an installable database. */
    check: (path: string) => Promise<void>;
    logger: Logger;
    onReceived: (message: Message) => void;
  }) {
    this.#snapshotter = options.snapshotter;
    this.#bytesMax = options.bytesMax;
    this.#check = options.check;
    this.#logger = options.logger;
    this.#onReceived = options.onReceived;
  }

  /** Throws when it is refused. */
  begin(message: Message): DatabaseSink {
    const index = message.snapshot?.metadata?.index ?? 0;
    if (index === 0) throw new Error("a snapshot without an index cannot be installed");
    if (this.#receiving >= RECEIVING_MAX) {
      throw new Error(`${RECEIVING_MAX} databases are being received already; send it again later`);
    }
    const writer = this.#snapshotter.receiveDb(index);
    this.#receiving++;
    this.#logger.info("receiving database snapshot", {
      "snapshot-index": index,
      "remote-snapshot-sender-id": formatId(message.from),
    });
    return new Sink(writer, this.#bytesMax, this.#check, (received) => {
      this.#receiving--;
      if (received) this.#onReceived(message);
    });
  }
}

/** Bytes that are written at once: two such pieces are in memory, one that is being written and one that fills. */
const PIECE_BYTES = 1024 * 1024;

class Sink implements DatabaseSink {
  readonly #writer: SnapDbWriter;
  readonly #bytesMax: number;
  readonly #check: (path: string) => Promise<void>;
  #ended: ((received: boolean) => void) | undefined;
  #piece: Buffer = Buffer.allocUnsafeSlow(PIECE_BYTES);
  #other: Buffer | undefined;
  #gathered = 0;
  #receivedBytes = 0;
  #writing: Promise<void> = Promise.resolve();

  constructor(
    writer: SnapDbWriter,
    bytesMax: number,
    check: (path: string) => Promise<void>,
    onEnd: (received: boolean) => void,
  ) {
    this.#writer = writer;
    this.#check = check;
    this.#bytesMax = bytesMax;
    this.#ended = onEnd;
  }

  async write(chunk: Uint8Array): Promise<void> {
    this.#receivedBytes += chunk.length;
    if (this.#bytesMax > 0 && this.#receivedBytes > this.#bytesMax) {
      throw new Error(
        `the database is larger than the ${this.#bytesMax} bytes that this member takes with its --quota-backend-bytes; ` +
          "give it the quota of the others",
      );
    }
    for (let at = 0; at < chunk.length; ) {
      const bytes = Math.min(chunk.length - at, PIECE_BYTES - this.#gathered);
      this.#piece.set(chunk.subarray(at, at + bytes), this.#gathered);
      this.#gathered += bytes;
      at += bytes;
      if (this.#gathered === PIECE_BYTES) await this.#flush();
    }
  }

  /** Starts to write what is gathered, once the piece before is written. */
  async #flush(): Promise<void> {
    await this.#writing;
    const piece = this.#piece;
    const writing = this.#writer.writeAsync(piece.subarray(0, this.#gathered));
    // Reported with the next piece.
    writing.catch(() => {});
    this.#writing = writing;
    this.#piece = this.#other ?? Buffer.allocUnsafeSlow(PIECE_BYTES);
    this.#other = piece;
    this.#gathered = 0;
  }

  /** The file is checked while the disk makes it durable. */
  async finish(): Promise<void> {
    let synced: Promise<unknown>;
    try {
      if (this.#gathered > 0) await this.#flush();
      await this.#writing;
      synced = this.#writer.sync().catch((error: unknown) => error);
    } catch (error) {
      this.#end(false);
      throw error;
    }
    try {
      await this.#check(this.#writer.temporaryPath);
    } catch (error) {
      this.#writer.abort();
      await synced;
      this.#end(false);
      throw new Error(`the database that was received cannot be used: ${messageOf(error)}`, { cause: error });
    }
    const failure = await synced;
    if (failure !== undefined) {
      this.#end(false);
      throw failure;
    }
    await this.#commit();
  }

  #commit(): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#writer.commit((error) => {
        this.#end(error === null);
        if (error === null) resolve();
        else reject(error);
      });
    });
  }

  async abort(): Promise<void> {
    this.#writer.abort();
    this.#end(false);
  }

  #end(received: boolean): void {
    this.#ended?.(received);
    this.#ended = undefined;
  }
}
