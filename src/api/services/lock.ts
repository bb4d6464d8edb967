import { Code } from "../../base/grpc-codes.ts";
import { EMPTY_BYTES } from "../../base/protobuf.ts";
import { DeleteRangeRequest, type DeleteRangeResponse } from "../../proto/etcdserverpb.ts";
import { LockRequest, LockResponse, LockService, UnlockRequest, UnlockResponse } from "../../proto/v3lockpb.ts";
import type { RpcRegistry, UnaryCall } from "../../rpc/contract.ts";
import { EtcdError } from "../../server/contract/errors.ts";
import { Op } from "../../server/log/op.ts";
import type { EtcdServer } from "../../server/server.ts";
import type { Access } from "../calls/access.ts";
import { decodeRequest, settle } from "../calls/calls.ts";
import type { HeaderWriter } from "../calls/header.ts";
import { LongAnswers } from "../range/long-answers.ts";
import { Caller, prefixEnd, sessionKey, takePlace, waitForOlder } from "./concurrency.ts";

/** The service Lock. Source: etcd `server/etcdserver/api/v3lock`. */
export class LockApi {
  readonly #server: EtcdServer;
  readonly #header: HeaderWriter;
  readonly #access: Access;
  readonly #long: LongAnswers;

  constructor(server: EtcdServer, header: HeaderWriter, access: Access) {
    this.#server = server;
    this.#header = header;
    this.#access = access;
    this.#long = new LongAnswers(server, header, access);
  }

  register(rpc: RpcRegistry): void {
    rpc.unary(LockService.Lock.path, (call) => settle(call, this.#lock(call)));
    rpc.unary(LockService.Unlock.path, (call) => settle(call, this.#unlock(call)));
  }

  async #lock(call: UnaryCall): Promise<void> {
    const request = decodeRequest(call, LockRequest);
    if (request === undefined) return;
    const caller = this.#callerOf(call);
    const lease = await caller.sessionLease(request.lease);
    const prefix = Buffer.concat([request.name, SLASH]);
    const key = sessionKey(prefix, lease);
    // The user needs it for the wait, too: then nothing is put in vain.
    caller.mayWatch(prefix, prefixEnd(prefix));
    const { rev } = await takePlace(caller, key, EMPTY_BYTES, lease);
    let hasWaited: boolean;
    try {
      hasWaited = await waitForOlder(caller, prefix, rev - 1);
    } catch (error) {
      await this.#delete(caller, key);
      throw error;
    }
    if (hasWaited && !caller.exists(key)) throw new EtcdError(Code.UNKNOWN, "mutex: session is expired");
    call.respond(LockResponse.encode(LockResponse.create({ header: this.#header.create(), key })));
  }

  async #unlock(call: UnaryCall): Promise<void> {
    const request = decodeRequest(call, UnlockRequest);
    if (request === undefined) return;
    if (request.key.length === 0) throw new EtcdError(Code.UNKNOWN, "etcdserver: key is not provided");
    const caller = this.#callerOf(call);
    const { header } = await this.#delete(caller, request.key);
    call.respond(UnlockResponse.encode(UnlockResponse.create({ header: this.#header.fill(header) })));
  }

  #callerOf(call: UnaryCall): Caller {
    return new Caller(this.#server, this.#access, this.#long, call);
  }

  #delete(caller: Caller, key: Uint8Array): Promise<DeleteRangeResponse> {
    const request = DeleteRangeRequest.create({ key });
    return caller.request(Op.DELETE_RANGE, request, DeleteRangeRequest.encode(request));
  }
}

const SLASH = Buffer.from("/");
