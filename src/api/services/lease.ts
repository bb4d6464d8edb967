import { Code } from "../../base/grpc-codes.ts";
import { ProtobufError } from "../../base/protobuf.ts";
import type { Lease } from "../../lease/lease.ts";
import {
  LeaseGrantRequest,
  LeaseGrantResponse,
  LeaseKeepAliveRequest,
  LeaseKeepAliveResponse,
  LeaseLeasesRequest,
  LeaseLeasesResponse,
  LeaseRevokeRequest,
  LeaseRevokeResponse,
  LeaseService,
  LeaseStatus,
  LeaseTimeToLiveRequest,
  LeaseTimeToLiveResponse,
  type ResponseHeader,
} from "../../proto/etcdserverpb.ts";
import type { RpcRegistry, StreamCall, UnaryCall } from "../../rpc/contract.ts";
import { LEASE_OVERHEAD_BYTES } from "../../server/apply/quota.ts";
import { EtcdError, errors } from "../../server/contract/errors.ts";
import { Op } from "../../server/log/op.ts";
import type { EtcdServer } from "../../server/server.ts";
import { type Access, refused } from "../calls/access.ts";
import { decodeRequest, failWith, failWithAny, settle } from "../calls/calls.ts";
import type { HeaderWriter } from "../calls/header.ts";
import { LongAnswers } from "../range/long-answers.ts";
import { Intake, type IntakeStream } from "./intake.ts";
import { keyPieces, leasePieces } from "./lease-lists.ts";

/** Longer lists are made in slices. */
const LEASES_AT_ONCE = 200;
const KEYS_AT_ONCE = 1000;

/** Renewals of one stream that may wait for the leader. */
const RENEWALS_MAX = 256;
/** Renewals handled in one turn for all streams, about five microseconds each. */
const RENEWALS_PER_TURN = 512;

/** The service Lease. Source: etcd `server/etcdserver/api/v3rpc/lease.go`. */
export class LeaseApi {
  readonly #server: EtcdServer;
  readonly #header: HeaderWriter;
  readonly #access: Access;
  readonly #long: LongAnswers;
  readonly #intake: Intake;

  constructor(server: EtcdServer, header: HeaderWriter, access: Access) {
    this.#long = new LongAnswers(server, header, access);
    this.#server = server;
    this.#header = header;
    this.#access = access;
    this.#intake = new Intake(server.options.clock, RENEWALS_PER_TURN);
  }

  register(rpc: RpcRegistry): void {
    rpc.unary(LeaseService.LeaseGrant.path, (call) => settle(call, this.#grant(call)));
    rpc.unary(LeaseService.LeaseRevoke.path, (call) => settle(call, this.#revoke(call)));
    rpc.unary(LeaseService.LeaseTimeToLive.path, (call) => settle(call, this.#timeToLive(call)));
    rpc.unary(LeaseService.LeaseLeases.path, (call) => this.#leases(call));
    rpc.stream(LeaseService.LeaseKeepAlive.path, (call) => this.#keepAlive(call));
  }

  async #grant(call: UnaryCall): Promise<void> {
    const request = decodeRequest(call, LeaseGrantRequest);
    if (request === undefined) return;
    if (!this.#server.quota.admits(LEASE_OVERHEAD_BYTES)) {
      await this.#server.raiseNoSpace();
      failWith(call, errors.noSpace);
      return;
    }
    if (refused(call, this.#access.refuseNobody(call))) return;
    while (request.id === 0n) request.id = BigInt.asUintN(63, this.#server.ids.nextBig());
    const outcome = await this.#access.request(call, Op.LEASE_GRANT, request, LeaseGrantRequest.encode(request));
    if (outcome instanceof EtcdError) failWith(call, outcome);
    else {
      this.#header.fill(outcome.header);
      call.respond(LeaseGrantResponse.encode(outcome));
    }
  }

  async #revoke(call: UnaryCall): Promise<void> {
    const request = decodeRequest(call, LeaseRevokeRequest);
    if (request === undefined) return;
    if (refused(call, this.#access.refuseNobody(call))) return;
    const outcome = await this.#access.request(call, Op.LEASE_REVOKE, request, call.message);
    if (outcome instanceof EtcdError) failWith(call, outcome);
    else {
      this.#header.fill(outcome.header);
      call.respond(LeaseRevokeResponse.encode(outcome));
    }
  }

  async #timeToLive(call: UnaryCall): Promise<void> {
    const request = decodeRequest(call, LeaseTimeToLiveRequest);
    if (request === undefined || refused(call, this.#access.refuseNobody(call))) return;
    if (request.keys && refused(call, this.#refusalOfKeys(call, request.id))) return;
    const found = await this.#server.duties.leases.timeToLive(request.id, request.keys);
    // Permissions may have been revoked meanwhile.
    if (request.keys && refused(call, this.#refusalOfKeys(call, request.id))) return;
    if (found instanceof EtcdError && found !== errors.leaseNotFound) return failWith(call, found);
    const response = LeaseTimeToLiveResponse.create({ header: this.#header.create(), id: request.id, ttl: -1 });
    if (!(found instanceof EtcdError)) {
      response.ttl = found.ttl;
      response.grantedTtl = found.grantedTtl;
      if (found.keys.length > KEYS_AT_ONCE) {
        const head = (): Uint8Array => LeaseTimeToLiveResponse.encode(response);
        this.#long.list(call, "LeaseTimeToLive", keyPieces(found.keys), head);
        return;
      }
      response.keys = [...found.keys];
    }
    call.respond(LeaseTimeToLiveResponse.encode(response));
  }

  #refusalOfKeys(call: UnaryCall, id: bigint): EtcdError | null {
    const access = this.#access;
    return access.check(call, (user) => access.permissions.leaseKeys(user, id));
  }

  #leases(call: UnaryCall): void {
    if (decodeRequest(call, LeaseLeasesRequest) === undefined) return;
    if (this.#access.enabled && refused(call, this.#access.refuseNobody(call))) return;
    const { lessor } = this.#server;
    const header = this.#header.create();
    if (lessor.count > LEASES_AT_ONCE) {
      const list = leasePieces(lessor, (lease) => this.#checkShown(call, lease));
      this.#long.list(call, "LeaseLeases", list, () =>
        LeaseLeasesResponse.encode(LeaseLeasesResponse.create({ header })),
      );
      return;
    }
    try {
      if (this.#access.enabled) for (const lease of lessor.all()) this.#checkShown(call, lease);
    } catch (error) {
      failWithAny(call, error);
      return;
    }
    const leases = lessor.leases().map((id) => LeaseStatus.create({ id }));
    call.respond(LeaseLeasesResponse.encode(LeaseLeasesResponse.create({ header, leases })));
  }

  /** Listing leases needs read permission on all their keys. */
  #checkShown(call: UnaryCall, { id, keyCount }: Lease): void {
    if (!this.#access.enabled || keyCount === 0) return;
    const error = this.#refusalOfKeys(call, id);
    if (error !== null) throw error;
  }

  /** Renewing a lease needs write permission on its keys. */
  #refusalOfRenewal(call: StreamCall, id: bigint): EtcdError | null {
    const access = this.#access;
    return access.refuseNobody(call) ?? access.check(call, (user) => access.permissions.lease(user, id));
  }

  #keepAlive(call: StreamCall): void {
    let underWay = 0;
    let ended = false;
    let blocked = false;
    let isLate = false;
    const resume = (): void => {
      if (!blocked && !isLate && underWay < RENEWALS_MAX) call.resumeReading();
    };
    const stream: IntakeStream = {
      goOn() {
        isLate = false;
        resume();
      },
    };
    const permitted = (id: bigint): EtcdError | null =>
      this.#access.enabled ? this.#refusalOfRenewal(call, id) : null;
    const answer = (id: bigint, header: ResponseHeader, error: EtcdError | null, ttl: number): void => {
      underWay--;
      if (call.cancelled) return;
      if (error !== null && error !== errors.leaseNotFound) {
        failWith(call, error);
        return;
      }
      const response = LeaseKeepAliveResponse.create({ header, id, ttl: error === null ? ttl : 0 });
      // Back-pressure: while a client does not read its answers, its requests are not read.
      if (!call.send(LeaseKeepAliveResponse.encode(response))) {
        blocked = true;
        call.pauseReading();
      }
      if (ended && underWay === 0) call.end();
      else resume();
    };
    call.onDrain = () => {
      blocked = false;
      resume();
    };
    call.onCancel = () => this.#intake.forget(stream);
    call.onHalfClose = () => {
      ended = true;
      if (underWay === 0) call.end();
    };
    call.onMessage = (message) => {
      let request: LeaseKeepAliveRequest;
      try {
        request = LeaseKeepAliveRequest.decode(message);
      } catch (error) {
        if (!(error instanceof ProtobufError)) throw error;
        call.fail(Code.INTERNAL, `grpc: error unmarshalling request: ${error.message}`);
        return;
      }
      const { id } = request;
      if (++underWay >= RENEWALS_MAX) call.pauseReading();
      // Created before the renewal: its revision must not be one at which the lease may already be gone.
      const header = this.#header.create();
      this.#server.duties.leases.renew(
        id,
        () => permitted(id),
        (error, ttl) => answer(id, header, error, ttl),
      );
      if (this.#intake.take(stream)) return;
      isLate = true;
      call.pauseReading();
    };
  }
}
