/**
 * A network inside one process: connects servers of the same test, by member id. Messages arrive in the next turn, in
 * order per pair; pairs can be partitioned, and single messages lost.
 */
import type { Clock } from "../../src/base/clock.ts";
import type { Message } from "../../src/proto/raftpb.ts";
import type { DatabaseImage, Network, NetworkReceiver, PeerAddress } from "../../src/server/contract/network.ts";

/** Messages in flight to one member: more are dropped, as in a real connection's queue. */
const UNDER_WAY_MAX = 4096;

/** Connects the members. */
export class InProcessHub {
  readonly clock: Clock;
  readonly members = new Map<bigint, InProcessNetwork>();
  /** Messages to lose. */
  drop: (message: Message) => boolean = () => false;
  /** Snapshot transfers to abort. */
  failSnapshot: (message: Message) => boolean = () => false;
  readonly #cut = new Set<bigint>();

  constructor(clock: Clock) {
    this.clock = clock;
  }

  /** The network of a member that is about to start; replaces that of an earlier run. */
  join(id: bigint): InProcessNetwork {
    const network = new InProcessNetwork(this, id);
    this.members.set(id, network);
    return network;
  }

  /** Partitions a member from all others. */
  cut(id: bigint): void {
    this.#cut.add(id);
  }

  mend(id: bigint): void {
    this.#cut.delete(id);
  }

  isCut(id: bigint): boolean {
    return this.#cut.has(id);
  }

  reaches(from: bigint, to: bigint): boolean {
    return !this.#cut.has(from) && !this.#cut.has(to) && this.members.get(to)?.receiver !== undefined;
  }
}

export class InProcessNetwork implements Network {
  readonly id: bigint;
  receiver: NetworkReceiver | undefined;
  /** Sent messages by type, for tests that count. */
  readonly sentByType = new Map<number, number>();
  readonly peers = new Map<bigint, PeerAddress>();
  readonly #hub: InProcessHub;
  readonly #activeSince = new Map<bigint, number>();
  #inbox: Message[] = [];
  #scheduled = false;

  constructor(hub: InProcessHub, id: bigint) {
    this.#hub = hub;
    this.id = id;
  }

  start(receiver: NetworkReceiver, _local?: unknown): void {
    this.receiver = receiver;
  }

  send(messages: readonly Message[]): void {
    for (const message of messages) {
      if (message.to === 0n || !this.peers.has(message.to)) continue;
      this.sentByType.set(message.type, (this.sentByType.get(message.type) ?? 0) + 1);
      if (this.#hub.drop(message)) continue;
      if (!this.#hub.reaches(this.id, message.to)) {
        this.#activeSince.delete(message.to);
        this.receiver?.reportUnreachable(message.to);
        continue;
      }
      this.#active(message.to);
      this.#hub.members.get(message.to)!.#take(message);
    }
  }

  sendSnapshot(message: Message, database: DatabaseImage): void {
    void this.#transfer(message, database).then(
      () => this.receiver?.reportSnapshot(message.to, true),
      () => {
        this.receiver?.reportUnreachable(message.to);
        this.receiver?.reportSnapshot(message.to, false);
      },
    );
  }

  async #transfer(message: Message, database: DatabaseImage): Promise<void> {
    try {
      const target = this.#hub.members.get(message.to)?.receiver;
      if (target === undefined || !this.#hub.reaches(this.id, message.to)) throw new Error("unreachable");
      const sink = target.beginSnapshot(message);
      try {
        const fails = this.#hub.failSnapshot(message);
        for await (const chunk of database.chunks()) {
          await sink.write(chunk);
          if (fails) throw new Error("broken off");
          if (!this.#hub.reaches(this.id, message.to)) throw new Error("connection lost");
        }
      } catch (error) {
        await sink.abort();
        throw error;
      }
      await sink.finish();
    } finally {
      database.close();
    }
  }

  addPeer(peer: PeerAddress): void {
    this.peers.set(peer.id, peer);
  }

  updatePeer(peer: PeerAddress): void {
    this.peers.set(peer.id, peer);
  }

  removePeer(id: bigint): void {
    this.peers.delete(id);
    this.#activeSince.delete(id);
  }

  addRemote(peer: PeerAddress): void {
    this.peers.set(peer.id, peer);
  }

  activeSince(id: bigint): number | undefined {
    if (!this.peers.has(id) || !this.#hub.reaches(this.id, id)) this.#activeSince.delete(id);
    else this.#active(id);
    return this.#activeSince.get(id);
  }

  async stop(): Promise<void> {
    this.receiver = undefined;
    this.#inbox = [];
  }

  #active(id: bigint): void {
    if (!this.#activeSince.has(id)) this.#activeSince.set(id, this.#hub.clock.nowMs());
  }

  #take(message: Message): void {
    if (this.#inbox.length >= UNDER_WAY_MAX) return;
    this.#inbox.push(message);
    if (this.#scheduled) return;
    this.#scheduled = true;
    this.#hub.clock.defer(() => {
      this.#scheduled = false;
      const messages = this.#inbox;
      this.#inbox = [];
      for (const each of messages) {
        if (this.receiver === undefined) return;
        if (!this.#hub.reaches(each.from, this.id)) continue;
        if (this.receiver.isRemoved(each.from)) this.#hub.members.get(each.from)?.receiver?.removed();
        else this.receiver.receive(each);
      }
    });
  }
}
