import { KvorumError } from "../../base/errors.ts";
import type { MaybeFatal } from "../../base/fatal.ts";
import { ProtobufError, Reader } from "../../base/protobuf.ts";
import { parseVersion } from "../../base/semver.ts";
import type { SliceBudget } from "../../base/slice-budget.ts";
import type { Slices } from "../../base/slices.ts";
import { InternalRaftRequest } from "../../proto/etcdserverpb.ts";
import { Op } from "./op.ts";
import { decodeInternalInSlices } from "./txn-decode.ts";
import { convertV2Request, findV2Request } from "./v2-request.ts";

/**
 * The request of a log entry, whichever version wrote it, and which entries must not get into the log. An entry in the
 * log is read again at every start, so every kind must be handled. Only two end the process, because continuing without
 * them would make this member diverge from the others: a request of a newer version, and keys of the v2 API.
 */

/** The log holds an entry that this version cannot apply. The message says what to do. */
export class LogEntryError extends KvorumError implements MaybeFatal {
  override name = "LogEntryError";
  readonly code = "ERR_LOG_ENTRY";
  readonly fatal = true;
}

/**
 * The request of an entry; undefined when it changes nothing here. `onRefused` gets the reason for entries that no
 * version of etcd makes. Throws `LogEntryError`.
 */
export function decodeLogEntry(data: Uint8Array, onRefused: (reason: string) => void): InternalRaftRequest | undefined {
  const v2 = findV2Request(data);
  if (v2 !== undefined) {
    const converted = convertV2Request(v2);
    if (converted !== "unknown") return converted;
    throw new LogEntryError(
      `the log has a request of the v2 API (${v2.method} ${v2.path}), which this version cannot apply: it was made by a member of ` +
        "etcd 3.5 or older with --enable-v2. Remove the v2 data before such members and this one share a cluster",
    );
  }
  try {
    const request = InternalRaftRequest.decode(data);
    if (hasRequest(data)) return request;
  } catch (error) {
    if (!(error instanceof ProtobufError)) throw error;
    onRefused(error.message);
    return undefined;
  }
  const field = unknownField(data);
  if (field !== undefined) {
    throw new LogEntryError(
      `the log has a request that this version cannot apply (field ${field} of InternalRaftRequest): a newer member made it. ` +
        "Start a server of the cluster's version on this data directory, or downgrade the cluster first (etcdctl downgrade enable)",
    );
  }
  onRefused("it holds no request");
  return undefined;
}

/** The same in slices, for an entry with a long transaction. */
export function* decodeLongEntry(
  data: Uint8Array,
  onRefused: (reason: string) => void,
  budget: SliceBudget,
): Slices<InternalRaftRequest | undefined> {
  try {
    return yield* decodeInternalInSlices(data, budget);
  } catch (error) {
    if (!(error instanceof ProtobufError)) throw error;
    onRefused(error.message);
    return undefined;
  }
}

/**
 * Why a request proposed by another member must not get into this leader's log; undefined for requests of honest
 * members. No member can refuse an entry once it is in the log, and members of stock etcd crash on one that they cannot
 * read.
 */
export function objectionToRequest(data: Uint8Array): string | undefined {
  if (data.length === 0) return "it is empty";
  try {
    return objection(data);
  } catch (error) {
    if (error instanceof ProtobufError) return error.message;
    throw error;
  }
}

function objection(data: Uint8Array): string | undefined {
  const v2 = findV2Request(data);
  if (v2 !== undefined) {
    return convertV2Request(v2) === "unknown" ? `a request of the v2 API (${v2.method} ${v2.path})` : undefined;
  }
  if (!hasRequest(data)) return "it holds no request that this version knows";
  return objectionToFields(data) ?? objectionToVersion(InternalRaftRequest.decode(data));
}

/** The same in slices, for a long transaction. */
export function* objectionInSlices(data: Uint8Array, budget: SliceBudget): Slices<string | undefined> {
  try {
    return objectionToFields(data) ?? objectionToVersion(yield* decodeInternalInSlices(data, budget));
  } catch (error) {
    if (error instanceof ProtobufError) return error.message;
    throw error;
  }
}

function objectionToFields(data: Uint8Array): string | undefined {
  const field = unknownField(data);
  return field === undefined ? undefined : `it has a field ${field} that this version does not know`;
}

function objectionToVersion({ clusterVersionSet }: InternalRaftRequest): string | undefined {
  if (clusterVersionSet === undefined || parseVersion(clusterVersionSet.ver) !== undefined) return undefined;
  return "it sets a version of the cluster that is none";
}

const hasRequest = (data: Uint8Array): boolean => anyField(data, (field) => REQUEST_FIELDS.has(field)) !== undefined;
const unknownField = (data: Uint8Array): number | undefined =>
  anyField(data, (field) => field !== ID_FIELD && field !== HEADER_FIELD && !REQUEST_FIELDS.has(field));

/** The first outermost field of that kind. Throws ProtobufError. */
function anyField(data: Uint8Array, isOne: (field: number) => boolean): number | undefined {
  reader.reset(data);
  while (reader.pos < data.length) {
    const tag = reader.tag();
    if (isOne(tag >>> 3)) return tag >>> 3;
    reader.skip(tag);
  }
  return undefined;
}

const reader = new Reader();
const ID_FIELD = 1;
const HEADER_FIELD = 100;
const REQUEST_FIELDS: ReadonlySet<number> = new Set(Object.values(Op).filter((op) => op !== Op.V2));
