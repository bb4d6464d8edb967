/**
 * The network between members, as etcd's rafthttp: wire-compatible with members of etcd 3.4 and later.
 *
 * Promises of `Network`: sending never waits or throws; messages that cannot be sent are dropped and reported. Every
 * queue has a limit. It owns the connections it opens, and those that a PeerServer gives its peers as streams.
 */
import type { Clock } from "../base/clock.ts";
import { Complaints } from "../base/complaints.ts";
import type { Logger } from "../base/log.ts";
import { parseUrls, type Url } from "../config/values/url.ts";
import { formatId } from "../membership/member.ts";
import { type Message, MessageType } from "../proto/raftpb.ts";
import type { DatabaseImage, LocalMember, Network, NetworkReceiver, PeerAddress } from "../server/contract/network.ts";
import { type DeliveryProblem, type PeerContext, typeName } from "./context.ts";
import type { PeerDialer } from "./dialer.ts";
import { PeerHttp } from "./http.ts";
import { PeerMetrics } from "./metrics.ts";
import { Peer } from "./peer.ts";
import { Remote } from "./remote.ts";

export interface PeerTransportOptions {
  readonly clock: Clock;
  readonly logger: Logger;
  readonly dialer: PeerDialer;
  /** `--raft-read-timeout` */
  readonly readTimeoutMs: number;
  /** `--raft-write-timeout` */
  readonly writeTimeoutMs: number;
}

/** Any client can claim to be a member; beyond this many, they get no answer. */
const REMOTES_MAX = 128;

export class PeerTransport implements Network {
  readonly metrics = new PeerMetrics();
  readonly #options: PeerTransportOptions;
  readonly #http: PeerHttp;
  readonly #peers = new Map<bigint, Peer>();
  readonly #remotes = new Map<bigint, Remote>();
  /** Peers and remotes with messages of the current `send`. */
  readonly #dirty: (Peer | Remote)[] = [];
  #receiver: NetworkReceiver | null = null;
  #context: PeerContext | null = null;
  #stopped = false;
  #unreachable = new Set<bigint>();
  #removedReported = false;

  constructor(options: PeerTransportOptions) {
    this.#options = options;
    this.#http = new PeerHttp(options.clock, options.dialer);
  }

  start(receiver: NetworkReceiver, local: LocalMember): void {
    if (this.#context !== null) throw new Error("the transport was started before");
    this.#receiver = receiver;
    this.#context = {
      ...this.#options,
      local,
      complaints: new Complaints(this.#options.logger, this.#options.clock),
      http: this.#http,
      metrics: this.metrics,
      deliver: (message) => this.#deliver(message),
      reportUnreachable: (id) => this.#reportUnreachable(id),
      reportSnapshot: (id, received) => this.#later((to) => to.reportSnapshot(id, received)),
      reportRemoved: () => this.#reportRemoved(),
    };
  }

  get clock(): Clock {
    return this.#options.clock;
  }

  /** Throws before `start`. */
  get context(): PeerContext {
    if (this.#context === null) throw new Error("the transport was not started");
    return this.#context;
  }

  /** Throws before `start`. */
  get receiver(): NetworkReceiver {
    if (this.#receiver === null) throw new Error("the transport was not started");
    return this.#receiver;
  }

  /** Undefined for an unknown member, and after `stop`. */
  peer(id: bigint): Peer | undefined {
    return this.#peers.get(id);
  }

  send(messages: readonly Message[]): void {
    const dirty = this.#dirty;
    for (let i = 0; i < messages.length; i++) {
      const message = messages[i]!;
      if (message.to === 0n) continue;
      const target = this.#peers.get(message.to) ?? this.#remotes.get(message.to);
      if (target === undefined) {
        this.#unknown(message);
        continue;
      }
      target.push(message);
      if (target.isDirty) continue;
      target.isDirty = true;
      dirty.push(target);
    }
    for (let i = 0; i < dirty.length; i++) {
      dirty[i]!.isDirty = false;
      dirty[i]!.flush();
    }
    dirty.length = 0;
  }

  sendSnapshot(message: Message, database: DatabaseImage): void {
    const peer = this.#peers.get(message.to);
    if (peer !== undefined) return peer.sendSnapshot(message, database);
    this.#unknown(message);
    database.close();
    this.context.reportSnapshot(message.to, false);
  }

  addPeer({ id, urls }: PeerAddress): void {
    if (this.#stopped || id === this.context.local.id || this.#peers.has(id)) return;
    const parsed = this.#parse(id, urls);
    if (parsed === undefined) return;
    this.#peers.set(id, new Peer(id, parsed, this.context));
    this.#options.logger.info("added remote peer", this.#fields("remote-peer", id, urls));
  }

  updatePeer({ id, urls }: PeerAddress): void {
    const peer = this.#peers.get(id);
    const parsed = this.#parse(id, urls);
    if (peer === undefined || parsed === undefined) return;
    peer.update(parsed);
    this.#options.logger.info("updated remote peer", this.#fields("updated-remote-peer", id, urls));
  }

  removePeer(id: bigint): void {
    const peer = this.#peers.get(id);
    const fields = {
      "local-member-id": formatId(this.context.local.id),
      "removed-remote-peer-id": formatId(id),
    };
    this.#remotes.get(id)?.stop();
    this.#remotes.delete(id);
    if (peer === undefined) {
      this.#options.logger.warn("skipped removing already removed peer", fields);
      return;
    }
    this.#peers.delete(id);
    peer.stop();
    this.#options.logger.info("removed remote peer", fields);
  }

  addRemote({ id, urls }: PeerAddress): void {
    if (this.#stopped || id === this.context.local.id || this.#peers.has(id) || this.#remotes.has(id)) return;
    if (this.#remotes.size >= REMOTES_MAX) return;
    const parsed = this.#parse(id, urls);
    if (parsed === undefined) return;
    this.#remotes.set(id, new Remote(id, parsed, this.context));
    this.#options.logger.info("added new remote peer", this.#fields("remote-peer", id, urls));
  }

  activeSince(id: bigint): number | undefined {
    return this.#peers.get(id)?.activeSince;
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    for (const remote of this.#remotes.values()) remote.stop();
    for (const peer of this.#peers.values()) peer.stop();
    this.#remotes.clear();
    this.#peers.clear();
    this.#http.close();
  }

  #deliver(message: Message): DeliveryProblem | undefined {
    const { complaints, local } = this.context;
    if (this.#stopped) return "error processing raft message";
    if (this.receiver.isRemoved(message.from)) {
      complaints.warn("rejected Raft message from removed member", {
        "local-member-id": formatId(local.id),
        "removed-member-id": formatId(message.from),
      });
      return "cannot process message from removed member";
    }
    if (message.to !== local.id) {
      complaints.warn("rejected Raft message to mismatch member", {
        "local-member-id": formatId(local.id),
        "mismatch-member-id": formatId(message.to),
      });
      return "cannot process message to mismatch member";
    }
    // A snapshot needs its database, and raft trusts the indexes of entries.
    if (message.type === MessageType.MsgSnap || !hasConsecutiveEntries(message)) return "error processing raft message";
    this.receiver.receive(message);
    return undefined;
  }

  #reportUnreachable(id: bigint): void {
    const isFirst = this.#unreachable.size === 0;
    this.#unreachable.add(id);
    if (!isFirst) return;
    this.#later((receiver) => {
      const ids = this.#unreachable;
      this.#unreachable = new Set();
      for (const one of ids) receiver.reportUnreachable(one);
    });
  }

  #reportRemoved(): void {
    if (this.#removedReported) return;
    this.#removedReported = true;
    this.#later((receiver) => receiver.removed());
  }

  #later(report: (receiver: NetworkReceiver) => void): void {
    this.#options.clock.defer(() => {
      if (!this.#stopped) report(this.receiver);
    });
  }

  #unknown(message: Message): void {
    const { logger } = this.#options;
    if (!logger.debugEnabled) return;
    logger.debug("ignored message send request; unknown remote peer target", {
      type: typeName(message),
      "unknown-target-peer-id": formatId(message.to),
    });
  }

  /** URLs come from the log or from other members: invalid ones are logged and skipped. */
  #parse(id: bigint, urls: readonly string[]): Url[] | undefined {
    try {
      return parseUrls(urls.join(","));
    } catch (error) {
      this.#options.logger.error("ignored a remote peer whose URLs cannot be used", {
        ...this.#fields("remote-peer", id, urls),
        error: (error as Error).message,
      });
      return undefined;
    }
  }

  #fields(prefix: string, id: bigint, urls: readonly string[]): Record<string, unknown> {
    return {
      "local-member-id": formatId(this.context.local.id),
      [`${prefix}-id`]: formatId(id),
      [`${prefix}-urls`]: urls,
    };
  }
}

/** Whether the entries of a MsgApp directly follow its index and each other. */
function hasConsecutiveEntries({ type, index, entries }: Message): boolean {
  if (type !== MessageType.MsgApp) return true;
  for (let i = 0; i < entries.length; i++) if (entries[i]!.index !== index + 1 + i) return false;
  return true;
}
