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

class Sink implements DatabaseSink {
  readonly #writer: SnapDbWriter;
  readonly #bytesMax: number;
  readonly #check: (path: string) => Promise<void>;
  #ended: ((received: boolean) => void) | undefined;

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
    if (this.#bytesMax > 0 && this.#writer.bytes + chunk.length > this.#bytesMax) {
      throw new Error(
        `the database is larger than the ${this.#bytesMax} bytes that this member takes with its --quota-backend-bytes; ` +
          "give it the quota of the others",
      );
    }
    this.#writer.write(chunk);
  }

  async finish(): Promise<void> {
    try {
      await this.#check(this.#writer.temporaryPath);
    } catch (error) {
      this.#writer.abort();
      this.#end(false);
      throw new Error(`the database that was received cannot be used: ${messageOf(error)}`, { cause: error });
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
