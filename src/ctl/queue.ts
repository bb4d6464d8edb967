/**
 * A queue ordered by create revision: the recipe for locks and elections. Compatible with etcd v3.7,
 * client/v3/concurrency (key.go, mutex.go, election.go).
 */
import type { Clock } from "../base/clock.ts";
import { encodeLossless } from "../base/lossless-text.ts";
import {
  Compare,
  Compare_CompareResult,
  Compare_CompareTarget,
  KVService,
  RangeRequest,
  RangeRequest_SortOrder,
  RangeRequest_SortTarget,
  type RangeResponse,
  RequestOp,
  type ResponseHeader,
} from "../proto/etcdserverpb.ts";
import type { Cluster } from "./connection.ts";
import { ExitError } from "./exit.ts";
import { prefixEnd } from "./ranges.ts";
import { cancelReason, WatchStream } from "./watch-stream.ts";

/** Our key in the queue under a prefix. */
export interface Place {
  readonly key: Buffer;
  readonly createRevision: number;
  /** The key's value, which another process chose if the key existed before. */
  readonly value: Uint8Array;
  readonly header: ResponseHeader | undefined;
}

/** Joins the queue `name` with a key of the lease, or finds the lease's existing place. */
export async function joinQueue(cluster: Cluster, name: string, lease: bigint, value: Uint8Array): Promise<Place> {
  const key = encodeLossless(`${name}/${lease.toString(16)}`);
  const response = await cluster.call(KVService.Txn, {
    compare: [ifCreatedAt(key, 0)],
    success: [
      RequestOp.create({ requestPut: { key, value, lease, prevKv: false, ignoreValue: false, ignoreLease: false } }),
    ],
    failure: [RequestOp.create({ requestRange: RangeRequest.create({ key }) })],
  });
  const existing = response.responses[0]?.responseRange?.kvs[0];
  return {
    key,
    createRevision: existing?.createRevision ?? response.header?.revision ?? 0,
    value: existing?.value ?? value,
    header: response.header,
  };
}

/** The condition that the key was created at `createRevision`; for 0, that it does not exist. */
export function ifCreatedAt(key: Uint8Array, createRevision: number): Compare {
  const equal = { result: Compare_CompareResult.EQUAL, target: Compare_CompareTarget.CREATE };
  return Compare.create({ ...equal, key, createRevision });
}

/** The oldest key of the queue: its owner's turn. */
export function first(cluster: Cluster, name: string): Promise<RangeResponse> {
  return byCreation(cluster, name, RangeRequest_SortOrder.ASCEND, 0);
}

function byCreation(cluster: Cluster, name: string, sortOrder: RangeRequest_SortOrder, maxCreateRevision: number) {
  const key = encodeLossless(`${name}/`);
  return cluster.call(KVService.Range, {
    key,
    rangeEnd: prefixEnd(key),
    sortOrder,
    sortTarget: RangeRequest_SortTarget.CREATE,
    limit: 1,
    maxCreateRevision,
  });
}

/** Resolves once no key of the queue is older than the place. Rejects with RpcError, or ExitError if a watch is refused. */
export async function awaitTurn(cluster: Cluster, clock: Clock, name: string, place: Place): Promise<void> {
  for (;;) {
    const { kvs, header } = await byCreation(cluster, name, RangeRequest_SortOrder.DESCEND, place.createRevision - 1);
    const older = kvs[0];
    // Waiting only for the next older key, not the oldest, avoids waking all at once.
    if (older === undefined) return;
    await awaitDeletion(cluster, clock, older.key, header?.revision ?? 0);
  }
}

/** Resolves once the key is deleted, at `revision` or later. */
async function awaitDeletion(cluster: Cluster, clock: Clock, key: Uint8Array, revision: number): Promise<void> {
  const stream = new WatchStream(cluster, clock, { key, startRevision: revision });
  for await (const response of stream.responses()) {
    if (response.canceled) throw new ExitError(1, cancelReason(response));
    if (response.events.some(({ type }) => type !== 0)) return;
  }
  throw new ExitError(1, "lost watcher waiting for delete");
}
