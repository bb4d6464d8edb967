import type { Clock } from "../base/clock.ts";
import type { Complaints } from "../base/complaints.ts";
import type { Logger } from "../base/log.ts";
import { type Message, MessageType } from "../proto/raftpb.ts";
import type { LocalMember } from "../server/contract/network.ts";
import type { PeerDialer } from "./dialer.ts";
import type { PeerHttp } from "./http.ts";
import type { PeerMetrics } from "./metrics.ts";

/** State shared by the parts of the transport. */
export interface PeerContext {
  readonly clock: Clock;
  readonly logger: Logger;
  /** For refused requests: refused peers retry again and again. */
  readonly complaints: Complaints;
  readonly metrics: PeerMetrics;
  readonly local: LocalMember;
  readonly dialer: PeerDialer;
  readonly http: PeerHttp;
  /** A stream that receives nothing for this long is closed; writers send heartbeats three times as often. */
  readonly readTimeoutMs: number;
  /** A stream that takes no bytes for this long is closed. */
  readonly writeTimeoutMs: number;
  /** Delivers a received message to the server, or returns why not. */
  deliver(message: Message): DeliveryProblem | undefined;
  /** Reports reach the server after the current event, because they are often made while it sends. */
  reportUnreachable(id: bigint): void;
  reportSnapshot(id: bigint, received: boolean): void;
  /** The cluster reports that the local member was removed. */
  reportRemoved(): void;
}

/** With etcd's answer texts. */
export type DeliveryProblem =
  | "cannot process message from removed member"
  | "cannot process message to mismatch member"
  | "error processing raft message";

export const MEMBER_REMOVED = "the member has been permanently removed from the cluster";

const TYPE_NAMES = new Map<number, string>(Object.entries(MessageType).map(([name, type]) => [type, name]));

/** As etcd logs it, such as "MsgApp". */
export const typeName = ({ type }: Message): string => TYPE_NAMES.get(type) ?? `${type}`;
