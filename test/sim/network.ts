/**
 * The network between the simulated machines: messages are delayed, reordered, duplicated or lost, and links are cut in
 * one or both directions. Messages travel encoded, as on the wire.
 */
import { Message, MessageType } from "../../src/proto/raftpb.ts";
import type {
  DatabaseImage,
  DatabaseSink,
  Network,
  NetworkReceiver,
  PeerAddress,
} from "../../src/server/contract/network.ts";
import type { SimRandom } from "./random.ts";
import type { Scheduler, SimProcess } from "./scheduler.ts";

/** The links' behaviour, as probabilities per message. */
export interface Weather {
  readonly delayMinMs: number;
  readonly delayMaxMs: number;
  readonly loss: number;
  readonly duplication: number;
  /** Messages that take many times longer. */
  readonly straggling: number;
}

export const FAIR: Weather = { delayMinMs: 1, delayMaxMs: 5, loss: 0, duplication: 0, straggling: 0 };

/** A member's end of the network, during one run of it. */
interface Endpoint {
  readonly id: bigint;
  readonly machine: string;
  readonly process: SimProcess;
  readonly sinceMs: number;
  /** Members it can send to. */
  readonly peers: Set<bigint>;
  receiver: NetworkReceiver | undefined;
}

/** Raft messages in flight to one member: a socket buffer is finite. */
const UNDER_WAY_MAX = 5000;
/** Time between two chunks of a database. */
const CHUNK_MS = 2;

export class SimNetwork {
  weather: Weather = FAIR;
  readonly counts = { sent: 0, lost: 0, duplicated: 0, delivered: 0, snapshots: 0 };
  readonly #scheduler: Scheduler;
  readonly #random: SimRandom;
  readonly #trace: (line: string) => void;
  readonly #endpoints = new Map<bigint, Endpoint>();
  /** "from>to" by machine. */
  readonly #cut = new Set<string>();
  /** When the two were last partitioned, by "a|b". */
  readonly #apartMs = new Map<string, number>();
  readonly #underWay = new Map<bigint, number>();
  /** Sees every message; true loses it. Tests plant bugs and targeted faults here. */
  intercept: ((message: Message) => boolean) | undefined;
  /** Called with each message that a machine sends, delivered or not. */
  onSent: ((machine: string, message: Message) => void) | undefined;
  /** A snapshot that a machine sent was not received. */
  onSnapshotLost: ((machine: string, error: unknown) => void) | undefined;

  constructor(scheduler: Scheduler, random: SimRandom, trace: (line: string) => void) {
    this.#scheduler = scheduler;
    this.#random = random;
    this.#trace = trace;
  }

  /** The network of a member that starts on a machine now. */
  join(id: bigint, machine: string, process: SimProcess): Network {
    const endpoint: Endpoint = {
      id,
      machine,
      process,
      sinceMs: this.#scheduler.nowMs,
      peers: new Set(),
      receiver: undefined,
    };
    this.#endpoints.set(id, endpoint);
    return new MemberNetwork(this, id, endpoint);
  }

  cut(from: string, to: string): void {
    this.#cut.add(`${from}>${to}`);
  }

  mend(from: string, to: string): void {
    if (this.#cut.delete(`${from}>${to}`)) this.#apartMs.set(pair(from, to), this.#scheduler.nowMs);
  }

  mendAll(): void {
    for (const link of [...this.#cut]) {
      const [from, to] = link.split(">");
      this.mend(from!, to!);
    }
  }

  isCut(from: string, to: string): boolean {
    return this.#cut.has(`${from}>${to}`);
  }

  delayMs(): number {
    const { delayMinMs, delayMaxMs, straggling } = this.weather;
    const delay = delayMinMs + (this.#random.below(1000) / 1000) * (delayMaxMs - delayMinMs);
    return straggling > 0 && this.#random.chance(straggling) ? delay * 20 : delay;
  }

  /** The endpoint of a member that this one can reach; undefined when it cannot. */
  reach(from: Endpoint, to: bigint): Endpoint | undefined {
    const target = this.#endpoints.get(to);
    if (target?.receiver === undefined || !target.process.alive) return undefined;
    return this.#cut.has(`${from.machine}>${target.machine}`) ? undefined : target;
  }

  deliver(from: Endpoint, message: Message): void {
    this.counts.sent++;
    this.onSent?.(from.machine, message);
    const target = this.reach(from, message.to);
    if (target === undefined || this.intercept?.(message)) {
      this.#lose(from, message.to);
      return;
    }
    if (this.#random.chance(this.weather.loss)) {
      this.#lose(from, message.to);
      return;
    }
    const bytes = Message.encode(message);
    this.#carry(from, message.to, target, bytes);
    // A connection delivers once. Raft tolerates duplicates otherwise, but a forwarded proposal would be proposed
    // twice, as in etcd.
    if (message.type === MessageType.MsgProp || !this.#random.chance(this.weather.duplication)) return;
    this.counts.duplicated++;
    this.#carry(from, message.to, target, bytes);
  }

  #carry(from: Endpoint, to: bigint, target: Endpoint, bytes: Uint8Array): void {
    const underWay = this.#underWay.get(to) ?? 0;
    if (underWay >= UNDER_WAY_MAX) {
      this.#lose(from, to);
      return;
    }
    this.#underWay.set(to, underWay + 1);
    this.#scheduler.after(this.delayMs(), () => {
      this.#underWay.set(to, this.#underWay.get(to)! - 1);
      if (this.#cut.has(`${from.machine}>${target.machine}`)) {
        this.counts.lost++;
        return;
      }
      target.process.run(() => {
        const { receiver } = target;
        if (receiver === undefined) return;
        const message = Message.decode(bytes);
        // The connection's owner counts: a message may be forwarded for another member.
        if (receiver.isRemoved(from.id)) {
          if (from.process.alive) from.process.run(() => from.receiver?.removed());
          return;
        }
        this.counts.delivered++;
        // A connection carries its sender's addresses, so that a member that does not know the sender yet can answer.
        target.peers.add(from.id);
        receiver.receive(message);
      });
    });
  }

  #lose(from: Endpoint, to: bigint): void {
    this.counts.lost++;
    this.#scheduler.after(this.delayMs(), () => from.process.run(() => from.receiver?.reportUnreachable(to)));
  }

  carrySnapshot(from: Endpoint, message: Message, database: DatabaseImage): void {
    this.counts.snapshots++;
    this.#trace(`network: ${from.machine} sends a snapshot of index ${message.snapshot?.metadata?.index}`);
    const report = (received: boolean): void => {
      this.#trace(`network: the snapshot from ${from.machine} was ${received ? "received" : "lost"}`);
      from.process.run(() => {
        if (!received) from.receiver?.reportUnreachable(message.to);
        from.receiver?.reportSnapshot(message.to, received);
      });
    };
    void this.#transfer(from, Message.decode(Message.encode(message)), database).then(
      () => report(true),
      (error: unknown) => {
        this.onSnapshotLost?.(from.machine, error);
        report(false);
      },
    );
  }

  /** Chunk by chunk; each takes time, and any can be the last. */
  async #transfer(from: Endpoint, message: Message, database: DatabaseImage): Promise<void> {
    try {
      const target = this.reach(from, message.to);
      if (target === undefined) throw new Error("unreachable");
      // A process that ends leaves its work unfinished; its connections break.
      const end = target.process.ended.then(() => Promise.reject(new Error("connection lost")));
      await Promise.race([end, this.#write(from, target, message, database)]);
    } finally {
      database.close();
    }
  }

  async #write(from: Endpoint, target: Endpoint, message: Message, database: DatabaseImage): Promise<void> {
    await this.#pass(from, target);
    const sink: DatabaseSink = target.receiver!.beginSnapshot(message);
    try {
      for await (const chunk of database.chunks()) {
        const copy = Buffer.from(chunk);
        await this.#pass(from, target);
        await sink.write(copy);
      }
    } catch (error) {
      if (target.process.alive) await sink.abort();
      throw error;
    }
    await sink.finish();
  }

  /** Resolves in the target when something has arrived there. */
  #pass(from: Endpoint, target: Endpoint): Promise<void> {
    return new Promise((resolve, reject) => {
      const broken = (): void => reject(new Error("connection lost"));
      this.#scheduler.after(CHUNK_MS + this.delayMs(), () => {
        if (!target.process.alive || !from.process.alive || target.receiver === undefined) broken();
        else if (this.#cut.has(`${from.machine}>${target.machine}`)) broken();
        else target.process.run(resolve);
      });
    });
  }

  /** A request to another member and its answer: both directions must be open. */
  ask<T>(asker: { machine: string; process: SimProcess }, to: bigint, answer: () => Promise<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      const fail = (): void =>
        void this.#scheduler.after(50, () => asker.process.run(() => reject(new Error("connection refused"))));
      const target = this.#endpoints.get(to);
      if (
        target?.receiver === undefined ||
        !target.process.alive ||
        this.#cut.has(`${asker.machine}>${target.machine}`)
      ) {
        fail();
        return;
      }
      const back = (act: () => void): void => {
        this.#scheduler.after(this.delayMs(), () => {
          if (this.#cut.has(`${target.machine}>${asker.machine}`)) fail();
          else asker.process.run(act);
        });
      };
      this.#scheduler.after(this.delayMs(), () => {
        if (!target.process.alive) {
          fail();
          return;
        }
        target.process.run(() => {
          answer().then(
            (value) => back(() => resolve(value)),
            (error: unknown) => back(() => reject(error)),
          );
        });
      });
    });
  }

  activeSince(from: Endpoint, to: bigint): number | undefined {
    const target = this.reach(from, to);
    if (target === undefined || this.#cut.has(`${target.machine}>${from.machine}`)) return undefined;
    const apartMs = this.#apartMs.get(pair(from.machine, target.machine)) ?? 0;
    return Math.max(from.sinceMs, target.sinceMs, apartMs) + 1000;
  }
}

const pair = (a: string, b: string): string => (a < b ? `${a}|${b}` : `${b}|${a}`);

class MemberNetwork implements Network {
  readonly #network: SimNetwork;
  readonly #id: bigint;
  readonly #endpoint: Endpoint;

  constructor(network: SimNetwork, id: bigint, endpoint: Endpoint) {
    this.#network = network;
    this.#id = id;
    this.#endpoint = endpoint;
  }

  start(receiver: NetworkReceiver): void {
    this.#endpoint.receiver = receiver;
  }

  send(messages: readonly Message[]): void {
    for (const message of messages) {
      if (message.to !== 0n && this.#endpoint.peers.has(message.to)) this.#network.deliver(this.#endpoint, message);
    }
  }

  sendSnapshot(message: Message, database: DatabaseImage): void {
    this.#network.carrySnapshot(this.#endpoint, message, database);
  }

  addPeer(peer: PeerAddress): void {
    if (peer.id !== this.#id) this.#endpoint.peers.add(peer.id);
  }

  updatePeer(peer: PeerAddress): void {
    this.addPeer(peer);
  }

  removePeer(id: bigint): void {
    this.#endpoint.peers.delete(id);
  }

  addRemote(peer: PeerAddress): void {
    this.addPeer(peer);
  }

  activeSince(id: bigint): number | undefined {
    return this.#endpoint.peers.has(id) ? this.#network.activeSince(this.#endpoint, id) : undefined;
  }

  async stop(): Promise<void> {
    this.#endpoint.receiver = undefined;
  }
}
