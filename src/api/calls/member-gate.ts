import { ProtobufError } from "../../base/protobuf.ts";
import { KVService, MaintenanceService, RangeRequest } from "../../proto/etcdserverpb.ts";
import type { CallInfo, RpcRegistry, StreamCall, UnaryCall } from "../../rpc/contract.ts";
import { errors } from "../../server/contract/errors.ts";
import type { EtcdServer } from "../../server/server.ts";
import { failWith } from "./calls.ts";
import { ClientVersions } from "./client-versions.ts";

/**
 * The checks before any service is called: a learner serves almost nothing, and clients that require a leader (metadata
 * `hasleader: true`) are refused without one. Also counts calls by client version. All services are registered through
 * this. Source: etcd `server/etcdserver/api/v3rpc/interceptor.go`.
 */
export class MemberGate {
  readonly versions = new ClientVersions();
  readonly #server: EtcdServer;
  /** Streams that end when the leader is lost. */
  readonly #streams = new Map<CallInfo, StreamCall>();

  constructor(server: EtcdServer) {
    this.#server = server;
    server.onLeaderLost(() => this.#endStreams());
  }

  /** A registry whose handlers are behind this gate. */
  wrap(rpc: RpcRegistry): RpcRegistry {
    return {
      unary: (path, handler) =>
        rpc.unary(path, (call) => {
          this.versions.unary(call);
          if (this.#admits(call, isServedByLearner)) handler(call);
        }),
      stream: (path, handler) =>
        rpc.stream(path, (call) => {
          this.versions.stream(call);
          if (!this.#admits(call, isStreamedByLearner)) return;
          if (requiresLeader(call)) this.#streams.set(call, call);
          handler(call);
        }),
    };
  }

  /** Call it at the end of every call. */
  callEnded(call: CallInfo): void {
    if (this.#streams.size > 0) this.#streams.delete(call);
  }

  #admits<C extends UnaryCall | StreamCall>(call: C, isServed: (call: C) => boolean): boolean {
    const server = this.#server;
    if (server.replication.isLearner && !isServed(call)) failWith(call, errors.notSupportedForLearner);
    else if (server.replication.leader === 0n && requiresLeader(call)) failWith(call, errors.noLeader);
    else return true;
    return false;
  }

  #endStreams(): void {
    const { grpcCode, message } = errors.noLeader;
    for (const stream of this.#streams.values()) stream.terminate(grpcCode, message);
    this.#streams.clear();
  }
}

function isServedByLearner(call: UnaryCall): boolean {
  if (call.path === MaintenanceService.Status.path) return true;
  if (call.path !== KVService.Range.path) return false;
  try {
    return RangeRequest.decode(call.message).serializable;
  } catch (error) {
    // The service reports the error.
    if (error instanceof ProtobufError) return true;
    throw error;
  }
}

function isStreamedByLearner(call: StreamCall): boolean {
  return call.path === MaintenanceService.Snapshot.path;
}

/** A client may require a leader (metadata `hasleader: true`). */
function requiresLeader(call: { header(name: string): string | undefined }): boolean {
  return call.header("hasleader") === "true";
}
