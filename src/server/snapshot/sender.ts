import type { Clock, Timer } from "../../base/clock.ts";
import type { Logger } from "../../base/log.ts";
import { decodeConfState, encodeV2Snapshot, type V2Membership } from "../../membership/cluster.ts";
import { decodeMember, formatId, type Member } from "../../membership/member.ts";
import { type Backend, type BackendSnapshot, type BucketName, metaKeys } from "../../mvcc/backend/backend.ts";
import { type ConfState, type Message, Snapshot } from "../../proto/raftpb.ts";
import type { Network } from "../contract/network.ts";
import { BackendImage } from "./database-image.ts";

/** Snapshots in progress at a time. Source: etcd `server/etcdserver/server.go`. */
const IN_FLIGHT_MAX = 16;
/** After a snapshot was received, the log is kept this long for its receiver to catch up. */
const RELEASE_DELAY_MS = 30_000;

/**
 * Sends snapshots to members that need compacted entries. Raft only names the addressee: the current state is sent,
 * with raft's part taken from the same image. Source: etcd `server/etcdserver/snapshot_merge.go`, `sendMergedSnap`.
 */
export class SnapshotSender {
  readonly #backend: () => Backend;
  readonly #network: Network;
  readonly #clock: Clock;
  readonly #logger: Logger;
  readonly #localId: bigint;
  /** Reports to raft that a snapshot failed. */
  readonly #onFailed: (to: bigint) => void;
  /** By addressee; received ones until the log need not be kept for them. */
  readonly #inFlight = new Map<bigint, { timer: Timer | undefined }>();
  #stopped = false;

  constructor(options: {
    backend: () => Backend;
    network: Network;
    clock: Clock;
    logger: Logger;
    localId: bigint;
    onFailed: (to: bigint) => void;
  }) {
    this.#backend = options.backend;
    this.#network = options.network;
    this.#clock = options.clock;
    this.#logger = options.logger;
    this.#localId = options.localId;
    this.#onFailed = options.onFailed;
  }

  /** While one is in progress, or its receiver catches up, the log after it must be kept. */
  get isActive(): boolean {
    return this.#inFlight.size > 0;
  }

  /** Sends the current state in place of a MsgSnap's snapshot. */
  send(message: Message): void {
    const { to } = message;
    const earlier = this.#inFlight.get(to);
    if (this.#inFlight.size >= IN_FLIGHT_MAX || (earlier !== undefined && earlier.timer === undefined)) {
      this.#clock.defer(() => this.#onFailed(to));
      return;
    }
    earlier?.timer?.cancel();
    this.#inFlight.set(to, { timer: undefined });
    this.#prepare(message).catch((error: unknown) => {
      this.#logger.warn("failed to send database snapshot to a member", { to: formatId(to), error: `${error}` });
      this.#inFlight.delete(to);
      if (!this.#stopped) this.#onFailed(to);
    });
  }

  /** The network reports the outcome of a snapshot. */
  finished(to: bigint, received: boolean): void {
    const entry = this.#inFlight.get(to);
    if (entry === undefined || entry.timer !== undefined) return;
    this.#logger.info(received ? "sent merged snapshot" : "failed to send merged snapshot", { to: formatId(to) });
    if (received && !this.#stopped) {
      entry.timer = this.#clock.after(RELEASE_DELAY_MS, () => this.#inFlight.delete(to));
    } else this.#inFlight.delete(to);
  }

  stop(): void {
    this.#stopped = true;
    for (const { timer } of this.#inFlight.values()) timer?.cancel();
  }

  async #prepare(message: Message): Promise<void> {
    const image = await BackendImage.open(this.#backend(), () => this.#stopped);
    if (image === undefined) return;
    try {
      const snapshot = describe(image.snapshot);
      this.#logger.info("sending merged snapshot", {
        from: formatId(this.#localId),
        to: formatId(message.to),
        bytes: image.sizeBytes,
        "snapshot-index": snapshot.metadata!.index,
      });
      this.#network.sendSnapshot({ ...message, snapshot }, image);
    } catch (error) {
      image.close();
      throw error;
    }
  }
}

/** Raft's part of a snapshot, derived from the database. */
function describe(database: BackendSnapshot): Snapshot {
  const meta = contentOf(database, "meta");
  const number = (key: Buffer): number => Number(Buffer.from(meta.get(key.toString("latin1"))!).readBigUInt64BE(0));
  const confState = meta.get(metaKeys.confState.toString("latin1"));
  if (confState === undefined) throw new Error("the database has no configuration of raft yet");
  return Snapshot.create({
    data: encodeV2Snapshot(membershipOf(database)),
    metadata: {
      confState: decodeConfState(confState) as ConfState,
      index: number(metaKeys.consistentIndex),
      term: number(metaKeys.term),
    },
  });
}

function membershipOf(database: BackendSnapshot): V2Membership {
  const members: Member[] = [];
  for (const [key, value] of contentOf(database, "members")) {
    members.push(decodeMember(BigInt(`0x${key}`), Buffer.from(value).toString("utf8")));
  }
  const removed = [...contentOf(database, "members_removed").keys()].map((key) => BigInt(`0x${key}`));
  const version = contentOf(database, "cluster").get("clusterVersion");
  return {
    members: () => members.sort((a, b) => (a.id < b.id ? -1 : 1)),
    removed: () => removed,
    version: version === undefined ? undefined : Buffer.from(version).toString("latin1"),
  };
}

/** A small bucket, by key text. */
function contentOf(database: BackendSnapshot, bucket: BucketName): Map<string, Uint8Array> {
  const content = new Map<string, Uint8Array>();
  for (const chunk of database.entries(bucket)) {
    for (const { key, value } of chunk) content.set(Buffer.from(key).toString("latin1"), value);
  }
  return content;
}
