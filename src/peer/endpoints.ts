/**
 * The HTTP endpoints for other members besides raft's traffic: members, versions, leases, hashes, whether a downgrade is
 * in progress, and promotion by the leader. Methods, statuses, headers and texts are etcd's, byte for byte, because
 * members of stock etcd read them. Sources: etcd `server/etcdserver/api/etcdhttp/peer.go`, `server/lease/leasehttp`,
 * `server/etcdserver/corrupt.go`.
 */

import type http from "node:http";
import { inBackground } from "../base/background.ts";
import { messageOf } from "../base/errors.ts";
import { isFatal } from "../base/fatal.ts";
import type { Logger } from "../base/log.ts";
import { ProtobufError } from "../base/protobuf.ts";
import type { Cluster } from "../membership/cluster.ts";
import { encodeMembers, formatId } from "../membership/member.ts";
import { CompactedError, FutureRevisionError } from "../mvcc/model/types.ts";
import type { MvccStore } from "../mvcc/store/store.ts";
import {
  LeaseKeepAliveRequest,
  LeaseKeepAliveResponse,
  LeaseTimeToLiveResponse,
  ResponseHeader,
} from "../proto/etcdserverpb.ts";
import { LeaseInternalRequest, LeaseInternalResponse } from "../proto/leasepb.ts";
import { EtcdError, errors } from "../server/contract/errors.ts";
import type { LeaseForwarding } from "../server/duties/lease-forwarding.ts";
import type { MembershipRequests } from "../server/duties/membership-requests.ts";
import type { Read } from "../server/log/read-queue.ts";

/** The part of the server that the endpoints need. */
export interface PeerEndpointsServer {
  readonly cluster: Pick<Cluster, "id" | "members" | "version" | "downgrade">;
  /** Undefined while it is unknown. */
  readonly storageVersion: string | undefined;
  readonly serverVersion: string;
  readonly store: Pick<MvccStore, "hashKv">;
  /** Serves linearizable reads. */
  readonly replication: { read(read: Read): void };
  readonly duties: { readonly leases: Pick<LeaseForwarding, "renewForPeer" | "timeToLiveHere"> };
  readonly membership: Pick<MembershipRequests, "promote">;
}

/** Requests are a few numbers. */
const REQUEST_BYTES_MAX = 64 * 1024;
const PROMOTE = "/members/promote/";

export class PeerEndpoints {
  readonly #server: PeerEndpointsServer;
  readonly #logger: Logger;
  readonly #clusterId: string;

  constructor(server: PeerEndpointsServer, logger: Logger) {
    this.#server = server;
    this.#logger = logger;
    this.#clusterId = formatId(server.cluster.id);
  }

  /** Answers the request, now or later; false when the path is not one of these. `path` has no query. */
  handle(request: http.IncomingMessage, response: http.ServerResponse, path: string): boolean {
    if (path.startsWith(PROMOTE)) this.#promote(request, response, path.slice(PROMOTE.length));
    else {
      switch (path) {
        case "/version":
          this.#version(request, response);
          break;
        case "/members":
          this.#members(request, response);
          break;
        case "/members/hashkv":
          this.#hashKv(request, response);
          break;
        case "/downgrade/enabled":
          this.#downgradeEnabled(request, response);
          break;
        case "/leases":
          this.#onLease(request, response, (body) => this.#renew(body, response));
          break;
        case "/leases/internal":
          this.#onLease(request, response, (body) => this.#timeToLive(body, response));
          break;
        default:
          return false;
      }
    }
    return true;
  }

  #version(request: http.IncomingMessage, response: http.ServerResponse): void {
    if (!allow("GET", request, response)) return;
    const { cluster, storageVersion, serverVersion } = this.#server;
    const versions = {
      etcdserver: serverVersion,
      etcdcluster: cluster.version ?? "not_decided",
      storage: storageVersion ?? "unknown",
    };
    send(response, "application/json", JSON.stringify(versions));
  }

  #members(request: http.IncomingMessage, response: http.ServerResponse): void {
    if (!allow("GET", request, response)) return;
    this.#nameCluster(response);
    send(response, "application/json", encodeMembers(this.#server.cluster.members()));
  }

  #downgradeEnabled(request: http.IncomingMessage, response: http.ServerResponse): void {
    if (!allow("GET", request, response)) return;
    this.#nameCluster(response);
    this.#server.replication.read({
      serve: (error) => {
        if (error !== null) fail(response, 500, `failed linearized read: ${error.message}`);
        else send(response, "text/plain", `${this.#downgradeIsAhead()}`);
      },
    });
  }

  /**
   * A joining member asks this, and while it is true expects a cluster of the next version above its own. etcd answers
   * true until the last member has the lower version. But then no member of that version could join, and members here
   * downgrade only by joining: older programs cannot read their data directories.
   */
  #downgradeIsAhead(): boolean {
    const { downgrade, version } = this.#server.cluster;
    return downgrade.enabled && version !== downgrade.targetVersion;
  }

  #hashKv(request: http.IncomingMessage, response: http.ServerResponse): void {
    if (!allow("GET", request, response)) return;
    const clusterId = request.headers["x-etcd-cluster-id"];
    if (clusterId !== undefined && clusterId !== "" && clusterId !== this.#clusterId) {
      fail(response, 412, "cluster ID mismatch");
      return;
    }
    readBody(request, response, (body) => {
      const revision = revisionOf(body);
      if (revision === undefined) {
        this.#logger.warn("failed to unmarshal request", { path: "/members/hashkv" });
        fail(response, 400, "error unmarshalling request");
      } else inBackground(this.#answerHash(response, revision), "answer HashKV", this.#logger);
    });
  }

  async #answerHash(response: http.ServerResponse, revision: number): Promise<void> {
    try {
      const { hash, compactRevision, hashRevision, currentRevision } = await this.#server.store.hashKv(revision);
      this.#nameCluster(response);
      const fields = {
        header: { revision: currentRevision },
        // Go omits zero values.
        ...(hash === 0 ? {} : { hash }),
        ...(compactRevision === 0 ? {} : { compact_revision: compactRevision }),
        ...(hashRevision === 0 ? {} : { hash_revision: hashRevision }),
      };
      send(response, "application/json", JSON.stringify(fields));
    } catch (error) {
      const text =
        error instanceof CompactedError
          ? "mvcc: required revision has been compacted"
          : error instanceof FutureRevisionError
            ? "mvcc: required revision is a future revision"
            : messageOf(error);
      this.#logger.warn("failed to get hashKV", { "requested-revision": revision, error: text });
      fail(response, 400, text);
    }
  }

  #promote(request: http.IncomingMessage, response: http.ServerResponse, idText: string): void {
    if (!allow("POST", request, response)) return;
    this.#nameCluster(response);
    if (!/^\d{1,20}$/.test(idText) || BigInt(idText) >= 1n << 64n) {
      fail(response, 404, `member ${idText} not found in cluster`);
      return;
    }
    const done = this.#answerPromotion(response, BigInt(idText), request.headers.authorization);
    inBackground(done, "answer a promotion", this.#logger);
  }

  async #answerPromotion(response: http.ServerResponse, id: bigint, token: string | undefined): Promise<void> {
    const outcome = await this.#server.membership.promote(id, token);
    if (outcome instanceof EtcdError) {
      this.#failPromotion(response, outcome);
      this.#logger.warn("failed to promote a member", { "member-id": formatId(id), error: outcome.message });
    } else send(response, "application/json", encodeMembers(outcome));
  }

  #failPromotion(response: http.ServerResponse, error: EtcdError): void {
    if (error === errors.memberNotFound) fail(response, 404, "membership: ID not found");
    else if (error === errors.memberNotLearner) fail(response, 412, "membership: can only promote a learner member");
    else if (error === errors.learnerNotReady) fail(response, 412, errors.learnerNotReady.message);
    else {
      response.statusCode = 500;
      send(response, "application/json", '{"message":"Internal Server Error"}');
    }
  }

  /** The common part of both lease requests. Only the leader's state is up to date, so the request waits for it. */
  #onLease(request: http.IncomingMessage, response: http.ServerResponse, handle: (body: Buffer) => void): void {
    if (request.method !== "POST") {
      fail(response, 405, "Method Not Allowed");
      return;
    }
    readBody(request, response, (body) => {
      try {
        handle(body);
      } catch (error) {
        if (isFatal(error)) throw error;
        if (error instanceof ProtobufError) return fail(response, 400, "error unmarshalling request");
        this.#logger.error("failed to serve a peer", { path: request.url ?? "", error: error as Error });
        fail(response, 500, "Internal Server Error");
      }
    });
  }

  #renew(body: Buffer, response: http.ServerResponse): void {
    const { id } = LeaseKeepAliveRequest.decode(body);
    this.#server.duties.leases.renewForPeer(id, (error, ttl) => {
      if (error !== null) failLease(response, 400, error);
      else sendProtobuf(response, LeaseKeepAliveResponse.encode(LeaseKeepAliveResponse.create({ id, ttl })));
    });
  }

  #timeToLive(body: Buffer, response: http.ServerResponse): void {
    const { id, keys } = LeaseInternalRequest.decode(body).leaseTimeToLiveRequest ?? { id: 0n, keys: false };
    this.#server.duties.leases.timeToLiveHere(id, keys).then(
      (found) => {
        if (found instanceof EtcdError) failLease(response, 500, found);
        else {
          const header = ResponseHeader.create();
          const leaseTimeToLiveResponse = LeaseTimeToLiveResponse.create({
            header,
            id,
            ...found,
            keys: [...found.keys],
          });
          sendProtobuf(
            response,
            LeaseInternalResponse.encode(LeaseInternalResponse.create({ leaseTimeToLiveResponse })),
          );
        }
      },
      (error: Error) => failLease(response, 500, error),
    );
  }

  #nameCluster(response: http.ServerResponse): void {
    response.setHeader("X-Etcd-Cluster-Id", this.#clusterId);
  }
}

/** Errors without a status in etcd get `status`. */
function failLease(response: http.ServerResponse, status: number, error: Error): void {
  if (error === errors.leaseNotFound) fail(response, 404, "lease not found");
  else if (error === errors.timeoutWaitApplied) {
    fail(response, 408, "waiting for node to catch up its applied index has timed out");
  } else fail(response, status, error === errors.leaderChanged ? "not a primary lessor" : error.message);
}

/** Undefined when the body is not a HashKVRequest in JSON. */
function revisionOf(body: Buffer): number | undefined {
  try {
    const fields: unknown = JSON.parse(body.toString("utf8"));
    if (typeof fields !== "object" || Array.isArray(fields)) return undefined;
    const revision = (fields as { revision?: unknown } | null)?.revision ?? 0;
    return Number.isInteger(revision) ? (revision as number) : undefined;
  } catch {
    return undefined;
  }
}

function allow(method: string, request: http.IncomingMessage, response: http.ServerResponse): boolean {
  if (request.method === method) return true;
  response.setHeader("Allow", method);
  fail(response, 405, "Method Not Allowed");
  return false;
}

/** As Go's `http.Error`. */
function fail(response: http.ServerResponse, status: number, text: string): void {
  response.statusCode = status;
  response.setHeader("X-Content-Type-Options", "nosniff");
  send(response, "text/plain; charset=utf-8", `${text}\n`);
}

function send(response: http.ServerResponse, type: string, body: string | Uint8Array): void {
  response.setHeader("Content-Type", type);
  response.setHeader("Content-Length", typeof body === "string" ? Buffer.byteLength(body) : body.length);
  response.end(body);
}

function sendProtobuf(response: http.ServerResponse, body: Uint8Array): void {
  send(response, "application/protobuf", body);
}

/** Incomplete requests are not handled. */
function readBody(request: http.IncomingMessage, response: http.ServerResponse, done: (body: Buffer) => void): void {
  const parts: Buffer[] = [];
  let bytes = 0;
  request.on("data", (part: Buffer) => {
    bytes += part.length;
    if (bytes <= REQUEST_BYTES_MAX) {
      parts.push(part);
      return;
    }
    if (response.headersSent) return;
    response.setHeader("Connection", "close");
    fail(response, 413, "request body too large");
  });
  request.on("end", () => {
    if (bytes <= REQUEST_BYTES_MAX) done(Buffer.concat(parts));
  });
  request.on("error", () => {});
}
