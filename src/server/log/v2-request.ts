import { ProtobufError, Reader } from "../../base/protobuf.ts";
import { InternalRaftRequest } from "../../proto/etcdserverpb.ts";
import { Attributes, ClusterMemberAttrSetRequest, ClusterVersionSetRequest } from "../../proto/membershippb.ts";

/**
 * Requests of the v2 API in the log: 3.4 and 3.5 members publish their attributes and the cluster version in this form.
 * Other v2 requests have no meaning any more. Source: etcd 3.6 `server/etcdserver/apply_v2.go`.
 */
export interface V2Request {
  readonly id: bigint;
  readonly method: string;
  readonly path: string;
  readonly value: string;
}

const METHODS: ReadonlySet<string> = new Set(["GET", "QGET", "PUT", "POST", "DELETE", "SYNC"]);

/** Either the whole entry, or field 2 of an InternalRaftRequest: field 2 identifies both. */
export function findV2Request(data: Uint8Array): V2Request | undefined {
  // Field 1, the id, may come first; any other beginning is a v3 request.
  if (data[0] !== 0x08 && data[0] !== 0x12) return undefined;
  const alone = readV2Request(data);
  if (alone !== undefined && METHODS.has(alone.method)) return alone;
  const inner = readBytesField(data, 2);
  return inner === undefined ? undefined : readV2Request(inner);
}

function readV2Request(data: Uint8Array): V2Request | undefined {
  const request = { id: 0n, method: "", path: "", value: "" };
  try {
    const reader = new Reader().reset(data);
    while (reader.pos < data.length) {
      const tag = reader.tag();
      if (tag === 0x08) request.id = reader.uint64Big();
      else if (tag === 0x12) request.method = reader.string();
      else if (tag === 0x1a) request.path = reader.string();
      else if (tag === 0x22) request.value = reader.string();
      else reader.skip(tag);
    }
    return request;
  } catch (error) {
    if (error instanceof ProtobufError) return undefined;
    throw error;
  }
}

function readBytesField(data: Uint8Array, field: number): Uint8Array | undefined {
  try {
    const reader = new Reader().reset(data);
    while (reader.pos < data.length) {
      const tag = reader.tag();
      if (tag === field * 8 + 2) return reader.bytes();
      reader.skip(tag);
    }
  } catch (error) {
    if (!(error instanceof ProtobufError)) throw error;
  }
  return undefined;
}

const ATTRIBUTES_PATH = /^\/0\/members\/([0-9a-f]{1,16})\/attributes$/i;
const VERSION_PATH = "/0/version";

/** Undefined for requests that change nothing here, "unknown" for those that cannot be applied. */
export function convertV2Request({ id, method, path, value }: V2Request): InternalRaftRequest | undefined | "unknown" {
  // A sweep of keys with a TTL, of which there are none; and reads.
  if (method === "SYNC" || method === "QGET" || method === "GET") return undefined;
  const member = ATTRIBUTES_PATH.exec(path)?.[1];
  const header = { id, username: "", authRevision: 0 };
  if (method === "PUT" && member !== undefined) {
    const memberAttributes = parseAttributes(value);
    if (memberAttributes === undefined) return undefined;
    const clusterMemberAttrSet = ClusterMemberAttrSetRequest.create({
      memberId: BigInt(`0x${member}`),
      memberAttributes,
    });
    return InternalRaftRequest.create({ header, clusterMemberAttrSet });
  }
  if (method === "PUT" && path === VERSION_PATH) {
    return InternalRaftRequest.create({ header, clusterVersionSet: ClusterVersionSetRequest.create({ ver: value }) });
  }
  return "unknown";
}

function parseAttributes(json: string): Attributes | undefined {
  try {
    const { name, clientURLs } = JSON.parse(json) as { name?: unknown; clientURLs?: unknown };
    return Attributes.create({
      name: typeof name === "string" ? name : "",
      clientUrls: Array.isArray(clientURLs) ? clientURLs.filter((url) => typeof url === "string") : [],
    });
  } catch {
    return undefined;
  }
}
