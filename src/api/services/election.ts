import { Code } from "../../base/grpc-codes.ts";
import { ProtobufError } from "../../base/protobuf.ts";
import { DeleteRangeRequest, RequestOp, type ResponseHeader, TxnRequest } from "../../proto/etcdserverpb.ts";
import { Event_EventType as EventType, type KeyValue } from "../../proto/mvccpb.ts";
import {
  CampaignRequest,
  CampaignResponse,
  ElectionService,
  LeaderKey,
  LeaderRequest,
  LeaderResponse,
  ProclaimRequest,
  ProclaimResponse,
  ResignRequest,
  ResignResponse,
} from "../../proto/v3electionpb.ts";
import type { RpcRegistry, StreamCall, UnaryCall } from "../../rpc/contract.ts";
import { EtcdError } from "../../server/contract/errors.ts";
import { readIndex } from "../../server/log/read-queue.ts";
import type { EtcdServer } from "../../server/server.ts";
import type { Access } from "../calls/access.ts";
import { decodeRequest, settle, settleStream } from "../calls/calls.ts";
import type { HeaderWriter } from "../calls/header.ts";
import { LongAnswers } from "../range/long-answers.ts";
import {
  Caller,
  cancelled,
  createdAt,
  KeyWatch,
  oldestUnder,
  prefixEnd,
  putOp,
  sessionKey,
  takePlace,
  waitForOlder,
} from "./concurrency.ts";

const missingLeader = new EtcdError(Code.UNKNOWN, '"leader" field must be provided');
const notLeader = new EtcdError(Code.UNKNOWN, "election: not leader");
const noLeader = new EtcdError(Code.UNKNOWN, "election: no leader");

/** The service Election. Source: etcd `server/etcdserver/api/v3election`. */
export class ElectionApi {
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
    rpc.unary(ElectionService.Campaign.path, (call) => settle(call, this.#campaign(call)));
    rpc.unary(ElectionService.Proclaim.path, (call) => settle(call, this.#proclaim(call)));
    rpc.unary(ElectionService.Leader.path, (call) => settle(call, this.#leader(call)));
    rpc.unary(ElectionService.Resign.path, (call) => settle(call, this.#resign(call)));
    rpc.stream(ElectionService.Observe.path, (call) => this.#observe(call));
  }

  async #campaign(call: UnaryCall): Promise<void> {
    const request = decodeRequest(call, CampaignRequest);
    if (request === undefined) return;
    const caller = this.#callerOf(call);
    const lease = await caller.sessionLease(request.lease);
    const prefix = prefixOf(request.name);
    const key = sessionKey(prefix, lease);
    const { response, rev, former } = await takePlace(caller, key, request.value, lease);
    if (former !== undefined && Buffer.compare(former, request.value) !== 0)
      await this.#replace(caller, key, rev, request.value, lease);
    try {
      await waitForOlder(caller, prefix, rev - 1);
    } catch (error) {
      await this.#withdraw(caller, key, rev);
      throw error;
    }
    const leader = LeaderKey.create({ name: request.name, key, rev, lease });
    call.respond(
      CampaignResponse.encode(CampaignResponse.create({ header: this.#header.fill(response.header), leader })),
    );
  }

  async #proclaim(call: UnaryCall): Promise<void> {
    const request = decodeRequest(call, ProclaimRequest);
    if (request === undefined) return;
    if (request.leader === undefined) throw missingLeader;
    const { key, rev, lease } = request.leader;
    const header = await this.#replace(this.#callerOf(call), key, rev, request.value, lease);
    call.respond(ProclaimResponse.encode(ProclaimResponse.create({ header })));
  }

  /** Puts a new value to the leader's key if it is still leader. */
  async #replace(
    caller: Caller,
    key: Uint8Array,
    rev: number,
    value: Uint8Array,
    lease: bigint,
  ): Promise<ResponseHeader> {
    const request = TxnRequest.create({ compare: [createdAt(key, rev)], success: [putOp(key, value, lease)] });
    const response = await caller.commit(request);
    if (!response.succeeded) throw notLeader;
    return this.#header.fill(response.header);
  }

  async #withdraw(caller: Caller, key: Uint8Array, rev: number): Promise<ResponseHeader> {
    const remove = RequestOp.create({ requestDeleteRange: DeleteRangeRequest.create({ key }) });
    const response = await caller.commit(TxnRequest.create({ compare: [createdAt(key, rev)], success: [remove] }));
    return this.#header.fill(response.header);
  }

  async #resign(call: UnaryCall): Promise<void> {
    const request = decodeRequest(call, ResignRequest);
    if (request === undefined) return;
    if (request.leader === undefined) throw missingLeader;
    const header = await this.#withdraw(this.#callerOf(call), request.leader.key, request.leader.rev);
    call.respond(ResignResponse.encode(ResignResponse.create({ header })));
  }

  async #leader(call: UnaryCall): Promise<void> {
    const request = decodeRequest(call, LeaderRequest);
    if (request === undefined) return;
    await this.#upToDate();
    const { kv } = await this.#callerOf(call).first(oldestUnder(prefixOf(request.name)));
    if (kv === undefined) throw noLeader;
    call.respond(LeaderResponse.encode(LeaderResponse.create({ header: this.#header.create(), kv })));
  }

  #observe(call: StreamCall): void {
    call.onMessage = (message) => {
      let request: LeaderRequest;
      try {
        request = LeaderRequest.decode(message);
      } catch (error) {
        if (!(error instanceof ProtobufError)) throw error;
        call.fail(Code.INTERNAL, `grpc: error unmarshalling request: ${error.message}`);
        return;
      }
      settleStream(call, this.#follow(call, prefixOf(request.name)));
    };
  }

  /** Sends each leader and each of its proclamations, until the client leaves. */
  async #follow(call: StreamCall, prefix: Uint8Array): Promise<void> {
    const caller = this.#callerOf(call);
    await this.#upToDate();
    while (!call.cancelled) {
      const oldest = await caller.first(oldestUnder(prefix));
      let found: KeyValue | undefined = oldest.kv;
      let { revision } = oldest;
      if (found === undefined) {
        await new KeyWatch(caller, prefix, prefixEnd(prefix), revision, ({ type, kv }) => {
          if (type !== EventType.PUT || kv === undefined) return false;
          found = kv;
          revision = kv.modRevision;
          return true;
        }).done;
      }
      if (found === undefined) return;
      this.#send(call, found, revision);
      const { key } = found;
      await new KeyWatch(caller, key, null, revision + 1, ({ type, kv }, headerRevision) => {
        if (type === EventType.DELETE || kv === undefined) return true;
        this.#send(call, kv, headerRevision);
        return false;
      }).done;
    }
    throw cancelled;
  }

  #send(call: StreamCall, kv: KeyValue, revision: number): void {
    if (call.cancelled) return;
    if (call.bufferedBytes > OBSERVE_BUFFER_BYTES_MAX) {
      call.fail(Code.RESOURCE_EXHAUSTED, "election: the observer reads too slowly; observe again");
      return;
    }
    call.send(LeaderResponse.encode(LeaderResponse.create({ header: this.#header.create(revision), kv })));
  }

  #callerOf(call: UnaryCall | StreamCall): Caller {
    return new Caller(this.#server, this.#access, this.#long, call);
  }

  async #upToDate(): Promise<void> {
    const error = await readIndex(this.#server.replication);
    if (error !== null) throw new EtcdError(Code.UNKNOWN, error.message);
  }
}

/** Bytes of proclamations waiting for a slow observer. */
const OBSERVE_BUFFER_BYTES_MAX = 16 * 1024 * 1024;

const prefixOf = (name: Uint8Array): Buffer => Buffer.concat([name, SLASH]);
const SLASH = Buffer.from("/");
