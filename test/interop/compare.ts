/**
 * Makes the answers of two servers comparable: removes the permitted differences between two correct servers, and
 * nothing else.
 *
 * These are: cluster and member ids, the raft term, seconds since a lease was granted, the order of sets that etcd
 * keeps in Go maps, and the order of equal sort keys, because Go's sort is not stable.
 */
import { inspect } from "node:util";
import { type RawClient, RpcError } from "../../src/client/raw.ts";
import {
  KVService,
  type LeaseLeasesResponse,
  LeaseService,
  type LeaseTimeToLiveResponse,
  type RangeRequest,
  type RangeResponse,
  type ResponseHeader,
  RangeRequest_SortTarget as SortTarget,
  type TxnRequest,
  type TxnResponse,
} from "../../src/proto/etcdserverpb.ts";
import type { KeyValue } from "../../src/proto/mvccpb.ts";
import { patience } from "../harness/wait.ts";
import type { Difference } from "./differences.ts";
import type { Step } from "./history.ts";

export interface Outcome {
  /** The normalised response or error. */
  readonly text: string;
  /** Revision of the response's header; undefined for an error. */
  readonly revision: number | undefined;
}

/** From a server that is gone: both servers reporting it would not be an answer. */
const UNAVAILABLE = 14;

/** Performs one step and describes the outcome without what `differences` says the stock version lacks. */
export async function outcome(
  client: RawClient,
  step: Step,
  differences: readonly Difference[] = [],
): Promise<Outcome> {
  try {
    const response = await client.unary(step.method, step.request as Partial<unknown>, { timeoutMs: patience(20_000) });
    const revision = (response as { header?: ResponseHeader }).header?.revision;
    normalise(step, response);
    for (const difference of differences) difference.hide?.(step, response);
    return { text: show(response), revision };
  } catch (error) {
    if (!(error instanceof RpcError) || error.code === UNAVAILABLE) throw error;
    return { text: error.message, revision: undefined };
  }
}

/** Bytes, bigints and nested messages as readable text. */
export function show(value: unknown): string {
  return inspect(printable(value), { depth: 20, maxArrayLength: null, breakLength: 160, sorted: true });
}

function printable(value: unknown): unknown {
  if (value instanceof Uint8Array) {
    const text = Buffer.from(value).toString("latin1");
    return text.length > 100 ? `${text.slice(0, 40)}… ${text.length} bytes, last ${text.slice(-8)}` : text;
  }
  if (Array.isArray(value)) return value.map(printable);
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(
    Object.entries(value)
      .filter(([, field]) => field !== undefined)
      .map(([name, field]) => [name, printable(field)]),
  );
}

function normalise({ method, request }: Step, response: unknown): void {
  const { header } = response as { header?: ResponseHeader };
  if (header) Object.assign(header, { clusterId: 0n, memberId: 0n, raftTerm: 0 });
  forEachRange({ method, request }, response, settleTies);
  switch (method.path) {
    case LeaseService.LeaseTimeToLive.path: {
      const lease = response as LeaseTimeToLiveResponse;
      if (lease.ttl > 0 && lease.ttl <= lease.grantedTtl && lease.ttl > lease.grantedTtl - 60)
        lease.ttl = lease.grantedTtl;
      lease.keys.sort(Buffer.compare);
      break;
    }
    case LeaseService.LeaseLeases.path:
      (response as LeaseLeasesResponse).leases.sort((a, b) => (a.id < b.id ? -1 : 1));
      break;
  }
}

/** Visits every range with its answer: that of a Range, or all in a transaction. */
export function forEachRange(
  { method, request }: Step,
  response: unknown,
  visit: (request: RangeRequest, response: RangeResponse) => void,
): void {
  if (method.path === KVService.Range.path) visit(request as RangeRequest, response as RangeResponse);
  else if (method.path === KVService.Txn.path) visitTxn(request as TxnRequest, response as TxnResponse, visit);
}

function visitTxn(
  request: TxnRequest,
  response: TxnResponse,
  visit: (request: RangeRequest, response: RangeResponse) => void,
): void {
  const ops = response.succeeded ? request.success : request.failure;
  response.responses.forEach((answer, i) => {
    const op = ops[i]!;
    if (op.requestRange && answer.responseRange) visit(op.requestRange, answer.responseRange);
    if (op.requestTxn && answer.responseTxn) visitTxn(op.requestTxn, answer.responseTxn, visit);
  });
}

/** Orders keys of equal sort value by key, and ignores which of them a limit cut off. */
function settleTies(request: RangeRequest, response: RangeResponse): void {
  const { kvs } = response;
  if (request.sortTarget === SortTarget.KEY || kvs.length === 0) return;
  const ranked = kvs.map((kv) => ({ kv, rank: rankOf(request, kv) }));
  const last = ranked.at(-1)!.rank;
  response.kvs = [];
  for (let i = 0; i < ranked.length; ) {
    let end = i;
    while (end < ranked.length && ranked[end]!.rank === ranked[i]!.rank) end++;
    const ties = ranked.slice(i, end).map(({ kv }) => kv);
    if (response.more && ranked[i]!.rank === last) response.kvs.push(...ties.map((kv) => cutOff(kv)));
    else response.kvs.push(...ties.sort((a, b) => Buffer.compare(a.key, b.key)));
    i = end;
  }
}

function rankOf(request: RangeRequest, kv: KeyValue): string {
  switch (request.sortTarget) {
    case SortTarget.VERSION:
      return String(kv.version);
    case SortTarget.CREATE:
      return String(kv.createRevision);
    case SortTarget.MOD:
      return String(kv.modRevision);
    default:
      // Sorting by value happens before keys_only drops the values, so the ranks are unknown then.
      return request.keysOnly ? "" : Buffer.from(kv.value).toString("latin1");
  }
}

const cutOff = (kv: KeyValue): KeyValue => ({
  ...kv,
  key: new Uint8Array(),
  value: new Uint8Array(),
  createRevision: 0,
  modRevision: 0,
  version: 0,
  lease: 0n,
});
