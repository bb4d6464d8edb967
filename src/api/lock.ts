import { DeleteRangeRequest, type DeleteRangeResponse, RequestOp, TxnRequest } from "../proto/etcdserverpb.ts";
import { LockRequest, LockResponse, LockService, UnlockRequest, UnlockResponse } from "../proto/v3lockpb.ts";
import type { RpcServer, UnaryCall } from "../rpc/server.ts";
import { Op } from "../server/apply.ts";
import { Code, EtcdError } from "../server/errors.ts";
import type { EtcdServer } from "../server/server.ts";
import { decodeRequest, settle } from "./calls.ts";
import {
  commit,
  createdAt,
  currentValue,
  getOp,
  oldestUnder,
  putOp,
  sessionKey,
  sessionLease,
  waitForOlder,
} from "./concurrency.ts";
import type { HeaderWriter } from "./header.ts";

/** The service Lock. Source: etcd `server/etcdserver/api/v3lock`. */
export class LockApi {
  readonly #server: EtcdServer;
  readonly #header: HeaderWriter;

  constructor(server: EtcdServer, header: HeaderWriter) {
    this.#server = server;
    this.#header = header;
  }

  register(rpc: RpcServer): void {
    rpc.unary(LockService.Lock.path, (call) => settle(call, this.#lock(call)));
    rpc.unary(LockService.Unlock.path, (call) => settle(call, this.#unlock(call)));
  }

  async #lock(call: UnaryCall): Promise<void> {
    const request = decodeRequest(call, this.#server, LockRequest);
    if (request === undefined) return;
    const server = this.#server;
    const lease = await sessionLease(server, request.lease);
    const prefix = Buffer.concat([request.name, SLASH]);
    const key = sessionKey(prefix, lease);
    const owner = RequestOp.create({ requestRange: oldestUnder(prefix) });
    const response = await commit(
      server,
      TxnRequest.create({
        compare: [createdAt(key, 0)],
        success: [putOp(key, Buffer.alloc(0), lease), owner],
        failure: [getOp(key), owner],
      }),
    );
    const mine = response.succeeded
      ? response.header!.revision
      : response.responses[0]!.responseRange!.kvs[0]!.createRevision;
    const first = response.responses[1]!.responseRange!.kvs[0];
    if (first !== undefined && first.createRevision !== mine) {
      try {
        await waitForOlder(server, prefix, mine - 1, call);
      } catch (error) {
        await this.#delete(key);
        throw error;
      }
      if (currentValue(server, key) === undefined) throw new EtcdError(Code.UNKNOWN, "mutex: session is expired");
    }
    call.respond(LockResponse.encode(LockResponse.create({ header: this.#header.create(), key })));
  }

  async #unlock(call: UnaryCall): Promise<void> {
    const request = decodeRequest(call, this.#server, UnlockRequest);
    if (request === undefined) return;
    if (request.key.length === 0) throw new EtcdError(Code.UNKNOWN, "etcdserver: key is not provided");
    const { header } = await this.#delete(request.key);
    call.respond(UnlockResponse.encode(UnlockResponse.create({ header: this.#header.fill(header) })));
  }

  async #delete(key: Uint8Array): Promise<DeleteRangeResponse> {
    const request = DeleteRangeRequest.create({ key });
    const outcome = await this.#server.request(Op.DELETE_RANGE, request, DeleteRangeRequest.encode(request));
    if (outcome instanceof EtcdError) throw new EtcdError(Code.UNKNOWN, outcome.message);
    return outcome as DeleteRangeResponse;
  }
}

const SLASH = Buffer.from("/");
