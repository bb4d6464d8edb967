import type { Logger } from "../base/log.ts";
import type { Cluster } from "../membership/cluster.ts";
import { formatId } from "../membership/member.ts";
import type { Message } from "../proto/raftpb.ts";
import { isLocalMsgTarget } from "../raft/messages.ts";
import type { DatabaseSink, NetworkReceiver } from "./network.ts";
import type { RaftLoop } from "./raft-loop.ts";
import type { SnapshotReceiver } from "./snapshot-receiver.ts";
import type { SnapshotSender } from "./snapshot-sender.ts";

/** What the network brings, checked before raft sees it. */
export class PeerReceiver implements NetworkReceiver {
  readonly #cluster: Cluster;
  readonly #loop: RaftLoop;
  readonly #snapshots: SnapshotReceiver;
  readonly #sender: SnapshotSender;
  readonly #logger: Logger;
  readonly #onRemoved: () => void;

  constructor(options: {
    cluster: Cluster;
    loop: RaftLoop;
    snapshots: SnapshotReceiver;
    sender: SnapshotSender;
    logger: Logger;
    onRemoved: () => void;
  }) {
    this.#cluster = options.cluster;
    this.#loop = options.loop;
    this.#snapshots = options.snapshots;
    this.#sender = options.sender;
    this.#logger = options.logger;
    this.#onRemoved = options.onRemoved;
  }

  receive(message: Message): void {
    if (this.#isForUs(message)) this.#loop.receive(message);
  }

  beginSnapshot(message: Message): DatabaseSink {
    if (!this.#isForUs(message)) throw new Error("the snapshot is not from a member of this cluster to this one");
    return this.#snapshots.begin(message);
  }

  isRemoved(id: bigint): boolean {
    return this.#cluster.isRemoved(id);
  }

  reportUnreachable(id: bigint): void {
    this.#loop.reportUnreachable(id);
  }

  reportSnapshot(id: bigint, received: boolean): void {
    this.#sender.finished(id, received);
    this.#loop.reportSnapshot(id, received);
  }

  removed(): void {
    this.#onRemoved();
  }

  #isForUs({ from, to }: Message): boolean {
    // These names stand for parts of this process; nobody else may use them.
    if (isLocalMsgTarget(from)) return false;
    const local = formatId(this.#cluster.localId);
    if (this.#cluster.isRemoved(from)) {
      this.#logger.warn("rejected Raft message from removed member", {
        "local-member-id": local,
        "removed-member-id": formatId(from),
      });
      return false;
    }
    if (to === this.#cluster.localId) return true;
    this.#logger.warn("rejected Raft message to mismatch member", {
      "local-member-id": local,
      "mismatch-member-id": formatId(to),
    });
    return false;
  }
}
