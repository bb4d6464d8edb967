/**
 * The other members as raft has them: its messages go out to them, theirs come in, snapshots both ways. Owns the use of
 * the network from the start to the stop; it has no part in what the messages decide.
 */
import type { Cluster } from "../../membership/cluster.ts";
import type { Backend } from "../../mvcc/backend/backend.ts";
import type { Message } from "../../proto/raftpb.ts";
import type { BackendQuota } from "../apply/quota.ts";
import type { ServerOptions } from "../contract/options.ts";
import { checkDatabase } from "../snapshot/database-check.ts";
import { SnapshotReceiver } from "../snapshot/receiver.ts";
import { SnapshotSender } from "../snapshot/sender.ts";
import type { Bootstrapped } from "../start/bootstrap.ts";
import { LostLogError } from "../start/lost-log.ts";
import { BEYOND_LOG } from "./message-check.ts";
import { Outbox } from "./outbox.ts";
import { PeerReceiver } from "./peer-receiver.ts";
import type { RaftLoop } from "./raft-loop.ts";

export interface PeersOptions {
  readonly server: ServerOptions;
  readonly parts: Bootstrapped;
  readonly cluster: Cluster;
  readonly quota: BackendQuota;
  readonly loop: RaftLoop;
  /** The current one, which a snapshot for another member is made of. */
  backend(): Backend;
  /** This member was removed from the cluster. */
  onRemoved(): void;
}

export class Peers {
  readonly #options: PeersOptions;
  readonly #outbox: Outbox;
  readonly #snapshotSender: SnapshotSender;
  readonly #receiver: PeerReceiver;

  constructor(options: PeersOptions) {
    this.#options = options;
    this.#snapshotSender = this.#openSnapshotSender();
    this.#outbox = this.#openOutbox();
    this.#receiver = this.#openReceiver();
  }

  #openSnapshotSender(): SnapshotSender {
    const { server, parts, loop, backend } = this.#options;
    const { network, clock, logger } = server;
    return new SnapshotSender({
      backend,
      network,
      clock,
      logger,
      localId: parts.memberId,
      onFailed: (to) => loop.reportSnapshot(to, false),
    });
  }

  #openOutbox(): Outbox {
    const { server, parts, cluster } = this.#options;
    const { network, logger, clock, tickMs } = server;
    return new Outbox({
      network,
      isRemoved: (id) => cluster.isRemoved(id),
      sendSnapshot: (message) => this.#snapshotSender.send(message),
      metrics: parts.metrics,
      logger,
      clock,
      heartbeatMs: tickMs,
    });
  }

  #openReceiver(): PeerReceiver {
    const { server, parts, cluster, quota, loop, onRemoved } = this.#options;
    const { logger, clock, disk } = server;
    return new PeerReceiver({
      cluster,
      loop,
      snapshots: new SnapshotReceiver({
        snapshotter: parts.snapshotter,
        bytesMax: quota.snapshotBytesMax,
        check: (path) => checkDatabase({ disk, clock, path }),
        logger,
        onReceived: (message) => loop.receive(message),
      }),
      sender: this.#snapshotSender,
      clock,
      logger,
      onRemoved,
    });
  }

  start(): void {
    const { network } = this.#options.server;
    const { members, remotes, clusterId, memberId } = this.#options.parts;
    const local = members.find(({ id }) => id === memberId);
    network.start(this.#receiver, { id: memberId, clusterId, urls: local?.peerUrls ?? [] });
    for (const { id, peerUrls } of remotes) if (id !== memberId) network.addRemote({ id, urls: peerUrls });
    for (const { id, peerUrls } of members) if (id !== memberId) network.addPeer({ id, urls: peerUrls });
  }

  /** Ends snapshots on their way to others; `stop` ends the rest. */
  stopSnapshots(): void {
    this.#snapshotSender.stop();
  }

  async stop(): Promise<void> {
    await this.#options.server.network.stop();
  }

  /** A snapshot is on its way to another member. */
  get isSendingSnapshot(): boolean {
    return this.#snapshotSender.isActive;
  }

  /** Connected members of those that were known at the start. */
  get activeCount(): number {
    const { server, parts } = this.#options;
    return parts.members.filter(({ id }) => server.network.activeSince(id) !== undefined).length;
  }

  /** Takes ownership of the array. */
  send(messages: Message[]): void {
    this.#outbox.send(messages);
  }

  /** A new leader starts with new intervals of heartbeats. */
  leaderChanged(): void {
    this.#outbox.reset();
  }

  /** A message was kept from raft. One that shows that this member has lost a part of its log ends the process. */
  refused(message: Message, problem: string): void {
    this.#receiver.refused(message, problem);
    if (problem === BEYOND_LOG && this.#isMember(message.from)) {
      this.#options.server.onFailure(this.#lostLog(message));
    }
  }

  /** A joining member knows the members from those it asked, until the log names them. */
  #isMember(id: bigint): boolean {
    const { cluster, parts } = this.#options;
    return cluster.member(id) !== undefined || [...parts.members, ...parts.remotes].some((member) => member.id === id);
  }

  #lostLog({ from, commit }: Message): LostLogError {
    const { memberId, dataDir, walDir, node } = this.#options.parts;
    return new LostLogError({ leader: from, commit, lastIndex: node.raft.log.lastIndex(), memberId, dataDir, walDir });
  }
}
