/**
 * A member with only raft and the transport: its log is in memory, and committed entries are kept in a list. It runs
 * beside stock etcd members, to show that they interoperate without a server.
 */
import { systemRandom } from "../../src/base/random.ts";
import { clusterId, encodeMember, memberId } from "../../src/membership/member.ts";
import {
  ConfChange,
  ConfChangeV2,
  type Entry,
  EntryType,
  type Message,
  MessageType,
  type Snapshot,
} from "../../src/proto/raftpb.ts";
import { MemoryStorage } from "../../src/raft/memory-storage.ts";
import { RawNode } from "../../src/raft/rawnode.ts";
import type { DatabaseSink, NetworkReceiver } from "../../src/server/contract/network.ts";
import { type Node, type NodeOptions, startNode } from "./loopback.ts";

const TICK_MS = 100;

export interface BareMember {
  readonly id: bigint;
  readonly raft: RawNode;
  readonly node: Node;
  readonly committed: Entry[];
  /** Databases received with snapshots. */
  readonly databases: Buffer[];
  readonly removedCount: number;
  /** Proposes an entry, or forwards it to the leader; false when there is none. */
  propose(data: Uint8Array): boolean;
  campaign(): void;
  transferLeader(to: bigint): void;
  close(): Promise<void>;
}

/** `members` are the peer URLs by name, as in --initial-cluster; this one listens on the port of `name`'s URL. */
export async function startBareMember(
  name: string,
  members: ReadonlyMap<string, string>,
  token: string,
  options: Omit<NodeOptions, "port" | "clusterId"> = {},
): Promise<BareMember> {
  const ids = [...members].map(([one, url]) => ({ name: one, url, id: memberId([url], token) }));
  ids.sort((a, b) => (a.id < b.id ? -1 : 1));
  const own = ids.find((member) => member.name === name)!;
  const storage = new MemoryStorage();
  const raft = new RawNode({
    id: own.id,
    electionTicks: 10,
    heartbeatTicks: 1,
    storage,
    random: systemRandom,
    messageBytesMax: 1024 * 1024,
    inflightMessagesMax: 512,
    checkQuorum: true,
    preVote: true,
  });
  raft.bootstrap(
    ids.map(({ id, url }) => ({
      id,
      context: Buffer.from(encodeMember({ id, peerUrls: [url], isLearner: false, name: "", clientUrls: [] })),
    })),
  );
  const committed: Entry[] = [];
  const databases: Buffer[] = [];
  let stopped = false;
  let removedCount = 0;

  const receiver: NetworkReceiver = {
    receive: step,
    beginSnapshot: (message) => collect(databases, () => step(message)),
    isRemoved: () => false,
    reportUnreachable: (id) => act(() => raft.reportUnreachable(id)),
    reportSnapshot: (id, received) => act(() => raft.reportSnapshot(id, received)),
    removed: () => {
      removedCount++;
    },
  };
  const node = await startNode(own.id, {
    ...options,
    receiver,
    port: Number(new URL(own.url).port),
    clusterId: clusterId(ids.map(({ id }) => id)),
  });
  for (const { id, url } of ids) node.transport.addPeer({ id, urls: [url] });
  const timer = setInterval(() => act(() => raft.tick()), TICK_MS);
  act(() => {});

  function step(message: Message): void {
    act(() => raft.step(message));
  }

  function act(event: () => void): void {
    if (stopped) return;
    event();
    while (raft.hasReady()) {
      const ready = raft.ready();
      if (ready.snapshot !== undefined) install(ready.snapshot);
      storage.append(ready.entries);
      node.transport.send(ready.messages.filter(({ type }) => type !== MessageType.MsgSnap));
      for (const entry of ready.committedEntries) {
        committed.push(entry);
        if (entry.type === EntryType.EntryConfChange) raft.applyConfChange(ConfChange.decode(entry.data));
        if (entry.type === EntryType.EntryConfChangeV2) raft.applyConfChange(ConfChangeV2.decode(entry.data));
      }
      raft.advance();
    }
  }

  function install(snapshot: Snapshot): void {
    storage.applySnapshot(snapshot);
  }

  return {
    id: own.id,
    raft,
    node,
    committed,
    databases,
    get removedCount() {
      return removedCount;
    },
    propose(data) {
      let taken = false;
      act(() => {
        taken = raft.propose(data) === undefined;
      });
      return taken;
    },
    campaign: () => act(() => raft.campaign()),
    transferLeader: (to) => act(() => raft.transferLeader(to)),
    async close() {
      stopped = true;
      clearInterval(timer);
      await node.close();
    },
  };
}

/** Keeps a database in memory. */
export function collect(into: Buffer[], finished: () => void): DatabaseSink {
  const parts: Buffer[] = [];
  return {
    async write(chunk) {
      parts.push(Buffer.from(chunk));
    },
    async finish() {
      into.push(Buffer.concat(parts));
      finished();
    },
    async abort() {
      parts.length = 0;
    },
  };
}
