import { createHash } from "node:crypto";

/**
 * Members of a cluster and their identities.
 * Ids are the first 64 bits of a SHA-1, computed as etcd does, so that the same flags give the same ids in both.
 */
export interface Member {
  readonly id: bigint;
  readonly peerUrls: readonly string[];
  readonly isLearner: boolean;
  /** Empty until the member has started and published its attributes. */
  readonly name: string;
  readonly clientUrls: readonly string[];
}

/** An id as etcd prints it: lower-case hexadecimal without leading zeros. */
export function formatId(id: bigint): string {
  return id.toString(16);
}

/**
 * The id of a member from its peer URLs. `addedAtSeconds` (Unix time) makes it unique for a member that is added to a
 * running cluster.
 */
export function memberId(peerUrls: readonly string[], clusterToken: string, addedAtSeconds?: number): bigint {
  const text = [...peerUrls].sort().join("") + clusterToken + (addedAtSeconds === undefined ? "" : `${addedAtSeconds}`);
  return createHash("sha1").update(text).digest().readBigUInt64BE(0);
}

/** The id of a cluster with these initial members. */
export function clusterId(memberIds: readonly bigint[]): bigint {
  const sorted = [...memberIds].sort((a, b) => (a < b ? -1 : a > b ? 1 : 0));
  const bytes = Buffer.alloc(8 * sorted.length);
  sorted.forEach((id, i) => {
    bytes.writeBigUInt64BE(id, 8 * i);
  });
  return createHash("sha1").update(bytes).digest().readBigUInt64BE(0);
}

/** JSON as Go's encoder writes it: `<`, `>` and `&` escaped. */
function goJson(value: unknown): string {
  return JSON.stringify(value).replace(
    /[<>&\u2028\u2029]/g,
    (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
}

/** A member's JSON, as in the `members` bucket and in the context of a configuration change. */
export function encodeMember(member: Member): string {
  const fields = [`"id":${member.id}`, `"peerURLs":${goJson(member.peerUrls)}`];
  if (member.isLearner) fields.push('"isLearner":true');
  if (member.name !== "") fields.push(`"name":${goJson(member.name)}`);
  if (member.clientUrls.length > 0) fields.push(`"clientURLs":${goJson(member.clientUrls)}`);
  return `{${fields.join(",")}}`;
}

/** A list of members, as members serve it under `/members`. */
export function encodeMembers(members: readonly Member[]): string {
  return `[${members.map(encodeMember).join(",")}]\n`;
}

/** Parses a list of members. Throws when it is not one, or when a member has no id. */
export function decodeMembers(json: string): Member[] {
  // The ids need all 64 bits, which JSON.parse would round.
  const exact = json.replace(/("id"\s*:\s*)(\d+)/g, '$1"$2"');
  // Go writes an empty list as null.
  const list: unknown = JSON.parse(exact) ?? [];
  if (!Array.isArray(list)) throw new Error("the list of members is no JSON array");
  return list.map((fields) => {
    const { id } = (fields ?? {}) as { id?: unknown };
    if (typeof id !== "string" || BigInt(id) >= 1n << 64n) throw new Error("a member in the list has no id of 64 bits");
    return memberFrom(BigInt(id), fields);
  });
}

/** Parses what `encodeMember` wrote. The id is separate, because a JSON number cannot hold it exactly. */
export function decodeMember(id: bigint, json: string): Member {
  return memberFrom(id, JSON.parse(json));
}

function memberFrom(id: bigint, fields: unknown): Member {
  if (typeof fields !== "object" || fields === null) throw new Error(`member ${formatId(id)} is not a JSON object`);
  const { peerURLs, isLearner, name, clientURLs } = fields as Record<string, unknown>;
  const strings = (value: unknown): string[] =>
    Array.isArray(value) ? value.filter((item): item is string => typeof item === "string") : [];
  return {
    id,
    peerUrls: strings(peerURLs),
    isLearner: isLearner === true,
    name: typeof name === "string" ? name : "",
    clientUrls: strings(clientURLs),
  };
}
