import type { AuthStore } from "../../auth/store.ts";
import type { Lessor } from "../../lease/lessor.ts";
import { type Cluster, saveConfState } from "../../membership/cluster.ts";
import { type Backend, metaKeys } from "../../mvcc/backend/backend.ts";
import type { MvccStore } from "../../mvcc/store/store.ts";
import { ConfState, type Snapshot } from "../../proto/raftpb.ts";
import type { Snapshotter } from "../../wal/snapshotter.ts";
import type { AlarmStore } from "../apply/alarms.ts";
import type { BackendQuota } from "../apply/quota.ts";
import type { StateMachine } from "../apply/state-machine.ts";
import type { Network } from "../contract/network.ts";

/** Opens a backend at a path. */
export type OpenBackend = (path: string) => Backend;

/**
 * Opens a received database where it is, completed and durable. Only the caller's rename with `Backend.moveTo` makes it
 * the member's, so a crash at any earlier moment leaves the old one, and the received file to begin again with.
 */
export async function openReceived(
  snapshotter: Snapshotter,
  snapshot: Snapshot,
  openBackend: OpenBackend,
): Promise<Backend> {
  const index = snapshot.metadata?.index ?? 0;
  const path = snapshotter.existingDbPath(index);
  const backend = openBackend(path);
  try {
    checkIndex(backend, index, path);
    completeMeta(backend, snapshot);
    await backend.commit();
    return backend;
  } catch (error) {
    await backend.close();
    throw error;
  }
}

/** Everything that uses the backend. */
export interface BackendUsers {
  readonly lessor: Lessor;
  readonly store: MvccStore;
  readonly machine: StateMachine;
  readonly alarms: AlarmStore;
  readonly quota: BackendQuota;
  readonly cluster: Cluster;
  readonly auth: AuthStore;
  readonly network: Network;
}

/**
 * Replaces a member's state by that of a received snapshot, whose database is open. The lessor comes before the store,
 * which attaches the keys to the leases.
 */
export async function switchBackend(next: Backend, snapshot: Snapshot, users: BackendUsers): Promise<void> {
  const { lessor, store, machine, alarms, quota, cluster, auth, network } = users;
  const { index = 0, term = 0, confState = ConfState.create() } = snapshot.metadata ?? {};
  const peers = cluster.members().filter(({ id }) => id !== cluster.localId);
  await lessor.recover(next);
  await store.replaceBackend(next);
  machine.restore(next, { index, term }, confState);
  alarms.recover(next);
  quota.use(next);
  auth.recover(next);
  cluster.recover(next);
  for (const { id } of peers) if (cluster.member(id) === undefined) network.removePeer(id);
  for (const { id, peerUrls } of cluster.members()) {
    if (id === cluster.localId) continue;
    network.addPeer({ id, urls: peerUrls });
    network.updatePeer({ id, urls: peerUrls });
  }
}

/** Data that etcd 3.4 does not store in its database. */
function completeMeta(backend: Backend, snapshot: Snapshot): void {
  const { confState, term = 0 } = snapshot.metadata ?? {};
  if (confState !== undefined) saveConfState(backend, confState);
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64BE(BigInt(term));
  backend.put("meta", metaKeys.term, bytes);
}

function checkIndex(backend: Backend, snapshotIndex: number, path: string): void {
  const bytes = backend.get("meta", metaKeys.consistentIndex);
  const index = bytes === undefined ? 0 : Number(Buffer.from(bytes).readBigUInt64BE(0));
  if (index === snapshotIndex) return;
  throw new Error(
    `${path} holds the state up to log index ${index}, but the snapshot that it came with is of ${snapshotIndex}`,
  );
}
