import { Code } from "../../base/grpc-codes.ts";
import { ProtobufError } from "../../base/protobuf.ts";
import { formatVersion } from "../../base/semver.ts";
import { Owner } from "../../base/turns.ts";
import {
  AlarmRequest_AlarmAction as AlarmAction,
  AlarmRequest,
  AlarmResponse,
  AlarmType,
  DefragmentRequest,
  DefragmentResponse,
  DowngradeRequest_DowngradeAction as DowngradeAction,
  DowngradeInfo,
  DowngradeRequest,
  DowngradeResponse,
  HashKVRequest,
  HashKVResponse,
  HashRequest,
  HashResponse,
  MaintenanceService,
  MoveLeaderRequest,
  MoveLeaderResponse,
  SnapshotRequest,
  StatusRequest,
  StatusResponse,
} from "../../proto/etcdserverpb.ts";
import type { RpcRegistry, StreamCall, UnaryCall } from "../../rpc/contract.ts";
import { alarmName } from "../../server/apply/apply.ts";
import { QUOTA_DEFAULT_BYTES } from "../../server/apply/quota.ts";
import { EtcdError, errors } from "../../server/contract/errors.ts";
import { Op } from "../../server/log/op.ts";
import type { EtcdServer } from "../../server/server.ts";
import { type Access, refused } from "../calls/access.ts";
import { decodeRequest, failWith, settle } from "../calls/calls.ts";
import type { HeaderWriter } from "../calls/header.ts";
import { DatabaseStream } from "./database-stream.ts";

/** The service Maintenance. Source: etcd `server/etcdserver/api/v3rpc/maintenance.go`. */
export class MaintenanceApi {
  readonly #server: EtcdServer;
  readonly #header: HeaderWriter;
  readonly #access: Access;
  /** All backups share the turns of one. */
  readonly #backups = new Owner("backups");
  /** One at a time: a second request waits for the first. */
  #defragmenting: Promise<void> = Promise.resolve();

  constructor(server: EtcdServer, header: HeaderWriter, access: Access) {
    this.#server = server;
    this.#header = header;
    this.#access = access;
  }

  register(rpc: RpcRegistry): void {
    rpc.unary(MaintenanceService.Alarm.path, (call) => settle(call, this.#alarm(call)));
    rpc.unary(MaintenanceService.Status.path, (call) => this.#status(call));
    const { forRoot } = this.#access;
    rpc.unary(
      MaintenanceService.Defragment.path,
      forRoot((call) => settle(call, this.#defragment(call))),
    );
    rpc.unary(
      MaintenanceService.Hash.path,
      forRoot((call) => settle(call, this.#hash(call))),
    );
    rpc.unary(
      MaintenanceService.HashKV.path,
      forRoot((call) => settle(call, this.#hashKv(call))),
    );
    rpc.unary(
      MaintenanceService.MoveLeader.path,
      forRoot((call) => settle(call, this.#moveLeader(call))),
    );
    rpc.unary(
      MaintenanceService.Downgrade.path,
      forRoot((call) => settle(call, this.#downgrade(call))),
    );
    rpc.stream(
      MaintenanceService.Snapshot.path,
      forRoot((call) => this.#snapshot(call)),
    );
  }

  async #alarm(call: UnaryCall): Promise<void> {
    const request = decodeRequest(call, AlarmRequest);
    if (request === undefined) return;
    const access = this.#access;
    const asks = request.action === AlarmAction.GET;
    if (refused(call, asks ? access.refuseNobody(call) : access.refuseAllButRoot(call))) return;
    const outcome = await access.request(call, Op.ALARM, request, call.message);
    if (outcome instanceof EtcdError) failWith(call, outcome);
    else {
      outcome.header = this.#header.fill(outcome.header);
      call.respond(AlarmResponse.encode(outcome));
    }
  }

  #status(call: UnaryCall): void {
    if (decodeRequest(call, StatusRequest) === undefined) return;
    if (refused(call, this.#access.refuseNobody(call))) return;
    const server = this.#server;
    const alarms = server.alarms.get(AlarmType.NONE);
    // With the spaces of Go's text format in the build of etcd 3.7.1; they vary from build to build.
    const problems = alarms.map((alarm) => `memberID:${alarm.memberId}  alarm:${alarmName(alarm.alarm)}`);
    if (server.replication.leader === 0n) problems.unshift(errors.noLeader.message);
    const response = StatusResponse.create({
      header: this.#header.create(),
      version: server.serverVersion,
      dbSize: server.replication.backend.sizeBytes(),
      dbSizeInUse: server.replication.backend.sizeInUseBytes(),
      leader: server.replication.leader,
      raftIndex: server.replication.committedIndex,
      raftTerm: server.replication.term,
      raftAppliedIndex: server.replication.appliedIndex,
      errors: problems,
      isLearner: server.replication.isLearner,
      storageVersion: server.storageVersion ?? "",
      dbSizeQuota: server.options.quotaBackendBytes || QUOTA_DEFAULT_BYTES,
      downgradeInfo: DowngradeInfo.create(server.cluster.downgrade),
    });
    call.respond(StatusResponse.encode(response));
  }

  async #defragment(call: UnaryCall): Promise<void> {
    if (decodeRequest(call, DefragmentRequest) === undefined) return;
    const { logger } = this.#server.options;
    const { metrics, options, replication } = this.#server;
    const { backend } = replication;
    const turn = this.#defragmenting.then(async () => {
      logger.info("starting defragment");
      metrics.defragmenting = 1;
      const startMs = options.clock.nowMs();
      await backend.defragment().finally(() => {
        metrics.defragmenting = 0;
      });
      metrics.defragment.observe((options.clock.nowMs() - startMs) / 1000);
    });
    this.#defragmenting = turn.catch(() => {});
    await turn;
    logger.info("finished defragment");
    call.respond(DefragmentResponse.encode(DefragmentResponse.create()));
  }

  async #hash(call: UnaryCall): Promise<void> {
    if (decodeRequest(call, HashRequest) === undefined) return;
    const { clock } = this.#server.options;
    const startMs = clock.nowMs();
    const { hash, revision } = await this.#server.store.hash();
    this.#server.metrics.hash.observe((clock.nowMs() - startMs) / 1000);
    call.respond(HashResponse.encode(HashResponse.create({ header: this.#header.create(revision), hash })));
  }

  async #hashKv(call: UnaryCall): Promise<void> {
    const request = decodeRequest(call, HashKVRequest);
    if (request === undefined) return;
    const { clock } = this.#server.options;
    const startMs = clock.nowMs();
    const found = await this.#server.store.hashKv(request.revision);
    this.#server.metrics.hashRevision.observe((clock.nowMs() - startMs) / 1000);
    const response = HashKVResponse.create({
      header: this.#header.create(found.currentRevision),
      hash: found.hash,
      compactRevision: found.compactRevision,
      hashRevision: found.hashRevision,
    });
    call.respond(HashKVResponse.encode(response));
  }

  #snapshot(call: StreamCall): void {
    call.onMessage = (message) => {
      try {
        SnapshotRequest.decode(message);
      } catch (error) {
        if (!(error instanceof ProtobufError)) throw error;
        call.fail(Code.INTERNAL, `grpc: error unmarshalling request: ${error.message}`);
        return;
      }
      const { metrics, options, duties, replication, turns } = this.#server;
      const { backend } = replication;
      const { stored } = duties.storageVersion;
      const storageVersion = stored === undefined ? "" : formatVersion(stored);
      const startMs = options.clock.nowMs();
      options.logger.info("sending database snapshot to client", { "storage-version": storageVersion });
      const stream = new DatabaseStream(call, backend, storageVersion, (bytes, error) => {
        metrics.backendSnapshot.observe((options.clock.nowMs() - startMs) / 1000);
        if (error !== undefined) {
          options.logger.warn("failed to send database snapshot to client", { error: `${error}` });
          if (!call.cancelled) call.fail(Code.UNKNOWN, `etcdserver: the snapshot could not be read: ${error}`);
        } else if (!call.cancelled) {
          options.logger.info("successfully sent database snapshot to client", { "total-bytes": bytes });
          call.end();
        }
      });
      if (turns.add(this.#backups, stream) === undefined) failWith(call, errors.tooManyLongRequests);
    };
  }

  async #moveLeader(call: UnaryCall): Promise<void> {
    const request = decodeRequest(call, MoveLeaderRequest);
    if (request === undefined) return;
    if (!this.#server.replication.isLeader) return failWith(call, errors.notLeader);
    const error = await this.#server.leaderTransfer.moveTo(request.targetId, () => call.cancelled);
    if (error !== undefined) return failWith(call, error);
    call.respond(MoveLeaderResponse.encode(MoveLeaderResponse.create()));
  }

  async #downgrade(call: UnaryCall): Promise<void> {
    const request = decodeRequest(call, DowngradeRequest);
    if (request === undefined) return;
    const { downgrades } = this.#server.duties;
    let version: string | EtcdError;
    switch (request.action) {
      case DowngradeAction.VALIDATE:
        version = await downgrades.validate(request.version);
        break;
      case DowngradeAction.ENABLE:
        version = await downgrades.enable(request.version);
        break;
      case DowngradeAction.CANCEL:
        version = await downgrades.cancel();
        break;
      default:
        call.fail(Code.UNKNOWN, "etcdserver: unknown method");
        return;
    }
    if (version instanceof EtcdError) return failWith(call, version);
    call.respond(DowngradeResponse.encode(DowngradeResponse.create({ header: this.#header.create(), version })));
  }
}
