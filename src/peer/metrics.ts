import { Histogram } from "../base/histogram.ts";
import { formatId } from "../membership/member.ts";

/** Powers of two, times the lowest. */
const doubling = (lowest: number, count: number): number[] => Array.from({ length: count }, (_, i) => lowest * 2 ** i);

/** Seconds. */
const SNAPSHOT_BUCKETS = doubling(0.1, 10);
const ROUND_TRIP_BUCKETS = doubling(0.0001, 16);

/** A client that is not a member can invent at most this many senders. */
const LABELS_MAX = 256;
const OTHERS = "others";

/** Numbers by peer id, as printed. */
export class ByPeer {
  readonly values = new Map<string, number>();

  add(peer: string, amount: number): void {
    const { values } = this;
    const label = values.has(peer) || values.size < LABELS_MAX ? peer : OTHERS;
    values.set(label, (values.get(label) ?? 0) + amount);
  }
}

export class HistogramsByPeer {
  readonly values = new Map<string, Histogram>();
  readonly #bounds: readonly number[];

  constructor(bounds: readonly number[]) {
    this.#bounds = bounds;
  }

  observe(peer: string, seconds: number): void {
    const { values } = this;
    const label = values.has(peer) || values.size < LABELS_MAX ? peer : OTHERS;
    let histogram = values.get(label);
    if (histogram === undefined) values.set(label, (histogram = new Histogram(this.#bounds)));
    histogram.observe(seconds);
  }
}

/** etcd's metrics of the traffic between members. Source: etcd's rafthttp/metrics.go. */
export class PeerMetrics {
  /** 1 or 0 by remote peer. */
  readonly active = new ByPeer();
  readonly disconnected = new ByPeer();
  readonly sentBytes = new ByPeer();
  readonly receivedBytes = new ByPeer();
  readonly sendFailures = new ByPeer();
  /** By peer, or by address when the peer is unknown. */
  readonly receiveFailures = new ByPeer();
  readonly snapshotsSent = new ByPeer();
  readonly snapshotsSending = new ByPeer();
  readonly snapshotSendFailures = new ByPeer();
  readonly snapshotSendSeconds = new HistogramsByPeer(SNAPSHOT_BUCKETS);
  readonly snapshotsReceived = new ByPeer();
  readonly snapshotsReceiving = new ByPeer();
  readonly snapshotReceiveFailures = new ByPeer();
  readonly snapshotReceiveSeconds = new HistogramsByPeer(SNAPSHOT_BUCKETS);
  readonly roundTripSeconds = new HistogramsByPeer(ROUND_TRIP_BUCKETS);

  peerActive(id: bigint, active: boolean): void {
    const peer = formatId(id);
    this.active.add(peer, active ? 1 : -1);
    if (!active) this.disconnected.add(peer, 1);
  }

  peerGone(id: bigint): void {
    this.active.add(formatId(id), -1);
  }
}
