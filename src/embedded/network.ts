/**
 * A network inside one process: connects the members of one cluster, by member id. Messages arrive in the receiver's next
 * turn, in order per pair; members can be cut off or parted into two sides, and single messages lost.
 */
import type { Clock } from "../base/clock.ts";
import { PeerMetrics } from "../peer/metrics.ts";
import type { Message } from "../proto/raftpb.ts";
import type { DatabaseImage, Network, NetworkReceiver, PeerAddress } from "../server/contract/network.ts";

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
  /** Members on one side of a partition; the others are on the other side. */
  #side: ReadonlySet<bigint> = new Set();

  constructor(clock: Clock) {
    this.clock = clock;
  }

  /** The network of a member that is about to start, on its own clock; replaces that of an earlier run. */
  join(id: bigint, clock: Clock = this.clock): InProcessNetwork {
    const network = this.create(clock);
    network.joined(id);
    return network;
  }

  /** The same for a member whose id is not known yet. */
  create(clock: Clock): InProcessNetwork {
    return new InProcessNetwork(this, clock);
  }

  /** Parts these members from all others; nobody, when there are none. */
  part(side: Iterable<bigint>): void {
    this.#side = new Set(side);
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
    if (this.#cut.has(from) || this.#cut.has(to) || this.#side.has(from) !== this.#side.has(to)) return false;
    return this.members.get(to)?.receiver !== undefined;
  }
}

export class InProcessNetwork implements Network {
  /** 0 until it is known. */
  id = 0n;
  receiver: NetworkReceiver | undefined;
  /** Sent messages by type. */
  readonly sentByType = new Map<number, number>();
  readonly peers = new Map<bigint, PeerAddress>();
  /** Nothing is counted: no byte passes a wire. */
  readonly metrics = new PeerMetrics();
  readonly #hub: InProcessHub;
  readonly #clock: Clock;
  readonly #activeSince = new Map<bigint, number>();
  #inbox: Message[] = [];
  #scheduled = false;
  #hasLeft = false;

  constructor(hub: InProcessHub, clock: Clock) {
    this.#hub = hub;
    this.#clock = clock;
  }

  /** The member's id is known: others reach it once it starts. */
  joined(id: bigint): void {
    this.id = id;
    this.#hub.members.set(id, this);
  }

  start(receiver: NetworkReceiver, local?: { readonly id: bigint }): void {
    if (local !== undefined) this.joined(local.id);
    this.receiver = receiver;
  }

  send(messages: readonly Message[]): void {
    if (this.#hasLeft) return;
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

  /** Cuts this member's connections for good, as the end of its process does. */
  leave(): void {
    this.#hasLeft = true;
    this.receiver = undefined;
    this.#inbox = [];
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
    if (this.#hasLeft || !this.peers.has(id) || !this.#hub.reaches(this.id, id)) this.#activeSince.delete(id);
    else this.#active(id);
    return this.#activeSince.get(id);
  }

  async stop(): Promise<void> {
    this.receiver = undefined;
    this.#inbox = [];
  }

  #active(id: bigint): void {
    if (!this.#activeSince.has(id)) this.#activeSince.set(id, this.#clock.nowMs());
  }

  #take(message: Message): void {
    if (this.#inbox.length >= UNDER_WAY_MAX) return;
    this.#inbox.push(message);
    if (this.#scheduled) return;
    this.#scheduled = true;
    this.#clock.defer(() => {
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
