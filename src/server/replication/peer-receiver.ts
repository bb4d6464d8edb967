import type { Clock } from "../../base/clock.ts";
import { Complaints } from "../../base/complaints.ts";
import type { Logger } from "../../base/log.ts";
import type { Cluster } from "../../membership/cluster.ts";
import { formatId } from "../../membership/member.ts";
import type { Message } from "../../proto/raftpb.ts";
import { isLocalMsgTarget, messageTypeName } from "../../raft/messages.ts";
import type { DatabaseSink, NetworkReceiver } from "../contract/network.ts";
import type { SnapshotReceiver } from "../snapshot/receiver.ts";
import type { SnapshotSender } from "../snapshot/sender.ts";
import { describeMessage } from "./describe-message.ts";
import { messageProblem } from "./message-check.ts";
import type { RaftLoop } from "./raft-loop.ts";

/** Messages from the network, checked before raft sees them. */
export class PeerReceiver implements NetworkReceiver {
  readonly #cluster: Cluster;
  readonly #loop: RaftLoop;
  readonly #snapshots: SnapshotReceiver;
  readonly #sender: SnapshotSender;
  readonly #logger: Logger;
  readonly #complaints: Complaints;
  readonly #onRemoved: () => void;

  constructor(options: {
    cluster: Cluster;
    loop: RaftLoop;
    snapshots: SnapshotReceiver;
    sender: SnapshotSender;
    clock: Clock;
    logger: Logger;
    onRemoved: () => void;
  }) {
    this.#cluster = options.cluster;
    this.#loop = options.loop;
    this.#snapshots = options.snapshots;
    this.#sender = options.sender;
    this.#logger = options.logger;
    this.#complaints = new Complaints(options.logger, options.clock);
    this.#onRemoved = options.onRemoved;
  }

  receive(message: Message): void {
    if (this.#logger.debugEnabled) this.#logger.debug("received Raft message", describeMessage(message));
    if (this.#isForUs(message)) this.#loop.receive(message);
  }

  beginSnapshot(message: Message): DatabaseSink {
    if (!this.#isForUs(message)) throw new Error("the snapshot is not from a member of this cluster to this one");
    // The database would be transferred for nothing.
    const problem = messageProblem(this.#loop.node.raft, message);
    if (problem !== undefined) {
      this.refused(message, problem);
      throw new Error(`the snapshot cannot be taken: ${problem}`);
    }
    return this.#snapshots.begin(message);
  }

  /** Logs a message that was kept from raft. */
  refused(message: Message, problem: string): void {
    this.#complaints.warn("refused a Raft message", {
      "local-member-id": formatId(this.#cluster.localId),
      "remote-peer-id": formatId(message.from),
      type: messageTypeName(message.type),
      reason: problem,
    });
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
    // These ids name parts of this process; no other sender may use them.
    if (isLocalMsgTarget(from)) return false;
    const local = formatId(this.#cluster.localId);
    if (this.#cluster.isRemoved(from)) {
      this.#complaints.warn("rejected Raft message from removed member", {
        "local-member-id": local,
        "removed-member-id": formatId(from),
      });
      return false;
    }
    if (to === this.#cluster.localId) return true;
    this.#complaints.warn("rejected Raft message to mismatch member", {
      "local-member-id": local,
      "mismatch-member-id": formatId(to),
    });
    return false;
  }
}
