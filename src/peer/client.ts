/**
 * Requests to other members over their peer URLs, as stock etcd sends and answers them. Tries a member's URLs in turn;
 * logs failures with etcd's texts and throws the last error. Owns its connections and no other state. Sources: etcd
 * `server/etcdserver/{cluster_util,corrupt}.go`, `server/lease/leasehttp/http.go`.
 */
import type { Logger } from "../base/log.ts";
import { parseUrls } from "../config/values/url.ts";
import { decodeMembers, formatId, type Member } from "../membership/member.ts";
import { LeaseKeepAliveRequest, LeaseKeepAliveResponse, LeaseTimeToLiveRequest } from "../proto/etcdserverpb.ts";
import { LeaseInternalRequest, LeaseInternalResponse } from "../proto/leasepb.ts";
import { EtcdError, errors } from "../server/contract/errors.ts";
import type {
  PeerAddress,
  PeerClient,
  PeerHash,
  PeerLease,
  PeerVersions,
  RemoteCluster,
} from "../server/contract/network.ts";
import type { PeerHttp, PeerRequest, PeerResponse } from "./http.ts";

export interface HttpPeerClientOptions {
  readonly logger: Logger;
  /** The client owns it from now on. */
  readonly http: PeerHttp;
  /** Per URL: etcd's request timeout. */
  readonly timeoutMs: number;
}

/** For answers that are a few numbers. */
const SMALL_BYTES_MAX = 64 * 1024;
/**
 * Some hundred members. Parsing one takes microseconds on the event loop, so a list of any length must not be accepted.
 */
const MEMBERS_BYTES_MAX = 128 * 1024;
/** A lease may have many keys. */
const LEASE_BYTES_MAX = 100 * 1024 * 1024;

/** Requests in flight at a time. */
const QUESTIONS_MAX = 10_000;

interface Question extends Omit<PeerRequest, "url"> {
  readonly peerUrl: string;
}

const PROTOBUF = { "content-type": "application/protobuf" };

export class HttpPeerClient implements PeerClient {
  readonly #http: PeerHttp;
  readonly #logger: Logger;
  readonly #timeoutMs: number;
  #underWay = 0;

  constructor(options: HttpPeerClientOptions) {
    this.#http = options.http;
    this.#logger = options.logger;
    this.#timeoutMs = options.timeoutMs;
  }

  close(): void {
    this.#http.close();
  }

  async members(peerUrl: string, timeoutMs: number): Promise<RemoteCluster> {
    const answer = await this.#ask({
      method: "GET",
      peerUrl,
      path: "/members",
      timeoutMs,
      bytesMax: MEMBERS_BYTES_MAX,
    });
    const id = `${answer.headers["x-etcd-cluster-id"] ?? ""}`;
    const members = parse(answer, decodeMembers);
    if (!/^[0-9a-f]{1,16}$/i.test(id)) throw new Error(`${peerUrl}/members: the answer names no cluster ("${id}")`);
    return { clusterId: BigInt(`0x${id}`), members };
  }

  versions(peer: PeerAddress): Promise<PeerVersions> {
    const ask = async (peerUrl: string): Promise<PeerVersions> => {
      const answer = await this.#get(peerUrl, "/version");
      const fields = parse(answer, (text) => JSON.parse(text) as unknown);
      return {
        server: text(fields, "etcdserver"),
        cluster: text(fields, "etcdcluster"),
        storage: text(fields, "storage"),
      };
    };
    return this.#tryEach(peer, ask, this.#unreachable(peer, "/version"));
  }

  hashKv(peer: PeerAddress, revision: number, clusterId: bigint): Promise<PeerHash> {
    const ask = async (peerUrl: string): Promise<PeerHash> => {
      const answer = await this.#ask({
        method: "GET",
        peerUrl,
        path: "/members/hashkv",
        headers: { "content-type": "application/json", "x-etcd-cluster-id": formatId(clusterId) },
        body: Buffer.from(JSON.stringify(revision === 0 ? {} : { revision })),
        timeoutMs: this.#timeoutMs,
        bytesMax: SMALL_BYTES_MAX,
      });
      if (answer.status !== 200) throw hashError(answer);
      const fields = parse(answer, (json) => JSON.parse(json) as unknown);
      return {
        hash: number(fields, "hash"),
        revision: number((fields as { header?: unknown })?.header, "revision"),
        compactRevision: number(fields, "compact_revision"),
        hashRevision: number(fields, "hash_revision"),
      };
    };
    return this.#tryEach(peer, ask, (peerUrl, error) =>
      this.#logger.warn("failed hash kv request", {
        "requested-revision": revision,
        "remote-peer-endpoint": peerUrl,
        error: messageOf(error),
      }),
    );
  }

  downgradeEnabled(peer: PeerAddress): Promise<boolean> {
    const ask = async (peerUrl: string): Promise<boolean> => {
      const answer = await this.#get(peerUrl, "/downgrade/enabled");
      const body = answer.body.toString("utf8");
      if (body === "true" || body === "false") return body === "true";
      throw new Error(`failed to convert response "${body.trim()}" of status ${answer.status}`);
    };
    return this.#tryEach(peer, ask, this.#unreachable(peer, "/downgrade/enabled"));
  }

  promoteMember(leader: PeerAddress, learnerId: bigint, token?: string): Promise<readonly Member[]> {
    const ask = async (peerUrl: string): Promise<readonly Member[]> => {
      const answer = await this.#ask({
        method: "POST",
        peerUrl,
        path: `/members/promote/${learnerId}`,
        ...(token === undefined ? {} : { headers: { authorization: token } }),
        timeoutMs: this.#timeoutMs,
        bytesMax: MEMBERS_BYTES_MAX,
      });
      if (answer.status !== 200) throw promoteError(answer);
      return parse(answer, decodeMembers);
    };
    return this.#tryEach(leader, ask, undefined);
  }

  renewLease(leader: PeerAddress, leaseId: bigint): Promise<number> {
    const body = LeaseKeepAliveRequest.encode(LeaseKeepAliveRequest.create({ id: leaseId }));
    const ask = async (peerUrl: string): Promise<number> => {
      const question = { peerUrl, path: "/leases", body, bytesMax: SMALL_BYTES_MAX };
      const response = LeaseKeepAliveResponse.decode(await this.#askLessor(question));
      if (response.id !== leaseId) throw new Error("lease: renew id mismatch");
      return response.ttl;
    };
    return this.#tryEach(leader, ask, undefined);
  }

  leaseTimeToLive(leader: PeerAddress, leaseId: bigint, withKeys: boolean): Promise<PeerLease> {
    const leaseTimeToLiveRequest = LeaseTimeToLiveRequest.create({ id: leaseId, keys: withKeys });
    const body = LeaseInternalRequest.encode(LeaseInternalRequest.create({ leaseTimeToLiveRequest }));
    const ask = async (peerUrl: string): Promise<PeerLease> => {
      const question = { peerUrl, path: "/leases/internal", body, bytesMax: LEASE_BYTES_MAX };
      const found = LeaseInternalResponse.decode(await this.#askLessor(question)).leaseTimeToLiveResponse;
      if (found?.id !== leaseId) throw new Error("lease: TTL id mismatch");
      return { ttl: found.ttl, grantedTtl: found.grantedTtl, keys: found.keys };
    };
    return this.#tryEach(leader, ask, undefined);
  }

  async #askLessor(question: Pick<Question, "peerUrl" | "path" | "body" | "bytesMax">): Promise<Buffer> {
    const answer = await this.#ask({ ...question, method: "POST", headers: PROTOBUF, timeoutMs: this.#timeoutMs });
    const body = answer.body.toString("utf8").trim();
    if (answer.status === 200) return answer.body;
    if (answer.status === 404 && body === "lease not found") throw errors.leaseNotFound;
    if (answer.status === 408) throw new Error(body);
    throw new Error(`lease: unknown error(${body})`);
  }

  async #ask({ peerUrl, ...request }: Question): Promise<PeerResponse> {
    const what = `${request.method === "GET" ? "Get" : "Post"} "${peerUrl}${request.path}"`;
    if (this.#underWay >= QUESTIONS_MAX) throw new Error(`${what}: too many requests to other members are in progress`);
    this.#underWay++;
    try {
      return await this.#http.request({ ...request, url: parseUrls(peerUrl)[0]! });
    } catch (error) {
      throw new Error(`${what}: ${messageOf(error)}`, { cause: error });
    } finally {
      this.#underWay--;
    }
  }

  #get(peerUrl: string, path: string): Promise<PeerResponse> {
    return this.#ask({ method: "GET", peerUrl, path, timeoutMs: this.#timeoutMs, bytesMax: SMALL_BYTES_MAX });
  }

  /** Returns the first answer. An EtcdError is an answer: another URL of the same member would give the same. */
  async #tryEach<T>(
    peer: PeerAddress,
    ask: (peerUrl: string) => Promise<T>,
    failed: ((peerUrl: string, error: unknown) => void) | undefined,
  ): Promise<T> {
    let last: unknown = new Error(`member ${formatId(peer.id)} has no peer URLs`);
    for (const peerUrl of peer.urls) {
      try {
        return await ask(peerUrl);
      } catch (error) {
        failed?.(peerUrl, error);
        if (error instanceof EtcdError) throw error;
        last = error;
      }
    }
    throw last;
  }

  #unreachable(peer: PeerAddress, path: string): (peerUrl: string, error: unknown) => void {
    return (peerUrl, error) =>
      this.#logger.warn("failed to reach the peer URL", {
        address: `${peerUrl}${path}`,
        "remote-member-id": formatId(peer.id),
        error: messageOf(error),
      });
  }
}

function hashError(answer: PeerResponse): unknown {
  const body = answer.body.toString("utf8");
  if (answer.status === 400) {
    if (body.includes("mvcc: required revision has been compacted")) return errors.compacted;
    if (body.includes("mvcc: required revision is a future revision")) return errors.futureRevision;
  }
  if (answer.status === 412 && body.includes("cluster ID mismatch")) return errors.clusterIdMismatch;
  return new Error(`unknown error: ${body.trim()}`);
}

function promoteError(answer: PeerResponse): unknown {
  const body = answer.body.toString("utf8");
  if (answer.status === 404) return errors.memberNotFound;
  if (answer.status === 412) {
    if (body.includes(errors.learnerNotReady.message)) return errors.learnerNotReady;
    if (body.includes("can only promote a learner member")) return errors.memberNotLearner;
  }
  return new Error(answer.status === 408 ? errors.timeout.message : `member promote: unknown error(${body.trim()})`);
}

function parse<T>(answer: PeerResponse, decode: (text: string) => T): T {
  const body = answer.body.toString("utf8");
  try {
    return decode(body);
  } catch (error) {
    const shown = body.length > 200 ? `${body.slice(0, 200)}…` : body.trim();
    throw new Error(`failed to unmarshal response of status ${answer.status} (${messageOf(error)}): ${shown}`);
  }
}

function text(fields: unknown, name: string): string {
  const value = (fields as Record<string, unknown> | null)?.[name];
  return typeof value === "string" ? value : "";
}

/** Go omits zero numbers. */
function number(fields: unknown, name: string): number {
  const value = (fields as Record<string, unknown> | null | undefined)?.[name];
  return typeof value === "number" ? value : 0;
}

const messageOf = (error: unknown): string => (error as { message?: string }).message ?? `${error}`;
