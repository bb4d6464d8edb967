import type { Timer } from "../../base/clock.ts";
import { Code } from "../../base/grpc-codes.ts";
import { ProtobufError } from "../../base/protobuf.ts";
import type { WatchBatch } from "../../mvcc/watch/batch.ts";
import { WatchResponseEncoder } from "../../mvcc/watch/encoding.ts";
import type { WatchStream } from "../../mvcc/watch/stream.ts";
import {
  type LargeBatch,
  LargeBatchGoneError,
  WATCH_ID_ALL,
  type Watch,
  WatchError,
  type WatchSink,
} from "../../mvcc/watch/types.ts";
import { type WatchCreateRequest, WatchRequest, WatchService } from "../../proto/etcdserverpb.ts";
import type { RpcRegistry, StreamCall } from "../../rpc/contract.ts";
import type { EtcdError } from "../../server/contract/errors.ts";
import type { EtcdServer } from "../../server/server.ts";
import type { AuditLog } from "../audit/audit-log.ts";
import type { Access } from "../calls/access.ts";
import { Intake, type IntakeStream } from "./intake.ts";
import { LargeResponse, SliceQueue } from "./large-response.ts";

/** Added to the largest request size for the limit of a response piece. Source: etcd `server/config`. */
export const GRPC_OVERHEAD_BYTES = 512 * 1024;
/** Requests handled in one turn for all streams, about ten microseconds each. */
const REQUESTS_PER_TURN = 256;
/** From this size on, the events of a response are not copied for each watcher. */
const SHARED_BYTES_MIN = 16 * 1024;
/** Shortest `--watch-progress-notify-interval`. */
const PROGRESS_INTERVAL_MIN_MS = 100;

/** The service Watch. Source: etcd `server/etcdserver/api/v3rpc/watch.go`. */
export class WatchApi {
  readonly server: EtcdServer;
  readonly access: Access;
  readonly audit: AuditLog | undefined;
  readonly encoder: WatchResponseEncoder;
  readonly intake: Intake;
  readonly slices: SliceQueue;
  readonly fragmentBytesMax: number;
  readonly #progressIntervalMs: number;

  constructor(server: EtcdServer, access: Access, progressNotifyIntervalMs: number, audit?: AuditLog) {
    this.server = server;
    this.audit = audit;
    this.access = access;
    this.encoder = new WatchResponseEncoder(server.cluster.id, server.memberId);
    this.#progressIntervalMs = Math.max(PROGRESS_INTERVAL_MIN_MS, progressNotifyIntervalMs);
    this.intake = new Intake(server.options.clock, REQUESTS_PER_TURN);
    this.slices = new SliceQueue(server.options.clock);
    this.fragmentBytesMax = server.options.maxRequestBytes + GRPC_OVERHEAD_BYTES;
  }

  register(rpc: RpcRegistry): void {
    rpc.stream(WatchService.Watch.path, (call) => {
      new ServerWatchStream(this, call);
    });
  }

  /** With a jitter of a tenth, so that streams that began together do not notify together. */
  progressIntervalMs(): number {
    const { random } = this.server.options;
    return this.#progressIntervalMs + random.below(Math.max(1, Math.floor(this.#progressIntervalMs / 10)));
  }
}

/** One Watch call: the client's requests, and the sink for its watchers. */
class ServerWatchStream implements WatchSink, IntakeStream {
  readonly #api: WatchApi;
  readonly #call: StreamCall;
  readonly #stream: WatchStream;
  /** The client reads too slowly: events wait in the store, requests in the socket. */
  #full = false;
  /** This turn has handled enough requests. */
  #isLate = false;
  /** A large revision being sent to a watcher; nothing else is sent until it is complete. */
  #large: LargeResponse | undefined = undefined;
  #progressTimer: Timer | null = null;

  constructor(api: WatchApi, call: StreamCall) {
    this.#api = api;
    this.#call = call;
    this.#stream = api.server.watchHub.newStream(this);
    call.onMessage = (message) => this.#receive(message);
    call.onDrain = () => this.#drained();
    call.onCancel = () => this.#close();
  }

  deliver(watch: Watch, batch: WatchBatch): boolean {
    if (this.#full || this.#large !== undefined) return false;
    const { encoder, server, fragmentBytesMax } = this.#api;
    if (watch.fragment) {
      encoder.forEachFragment(batch, watch.id, server.replication.term, fragmentBytesMax, (prefix, events) =>
        this.#sendParts(prefix, events),
      );
    } else if (batch.byteCount < SHARED_BYTES_MIN)
      this.#send(encoder.encodeEvents(batch, watch.id, server.replication.term));
    else
      this.#sendParts(
        encoder.encodePrefix(batch.revision, watch.id, server.replication.term, false),
        batch.encodedEvents(),
      );
    return true;
  }

  deliverLarge(watch: Watch, batch: LargeBatch): boolean {
    if (this.#full || this.#large !== undefined) return false;
    const { encoder, server } = this.#api;
    const fragmentBytesMax = watch.fragment ? this.#api.fragmentBytesMax : Number.POSITIVE_INFINITY;
    const options = { encoder, watchId: watch.id, term: server.replication.term, fragmentBytesMax };
    this.#large = new LargeResponse(this.#call, batch, options);
    this.#call.pauseReading();
    this.#api.slices.add(this.#goOnWithLarge);
    return true;
  }

  deliverCompacted(watch: Watch, compactRevision: number): boolean {
    if (this.#full || this.#large !== undefined) return false;
    this.#send(this.#api.encoder.encodeCompacted(watch.id, compactRevision, this.#api.server.replication.term));
    return true;
  }

  deliverProgress(watchId: number, revision: number): boolean {
    if (this.#full || this.#large !== undefined) return false;
    this.#send(this.#api.encoder.encodeProgress(watchId, revision, this.#api.server.replication.term));
    return true;
  }

  goOn(): void {
    this.#isLate = false;
    this.#readOn();
  }

  #receive(message: Uint8Array): void {
    let request: WatchRequest;
    try {
      request = WatchRequest.decode(message);
    } catch (error) {
      if (!(error instanceof ProtobufError)) throw error;
      this.#close();
      this.#call.fail(Code.INTERNAL, `grpc: error unmarshalling request: ${error.message}`);
      return;
    }
    if (request.createRequest !== undefined) this.#create(request.createRequest);
    else if (request.cancelRequest !== undefined) this.#cancel(request.cancelRequest.watchId);
    else if (request.progressRequest !== undefined) this.#stream.requestProgressAll();
    if (this.#api.intake.take(this)) return;
    this.#isLate = true;
    this.#call.pauseReading();
  }

  #create(request: WatchCreateRequest): void {
    const { encoder, server } = this.#api;
    const revision = this.#stream.revision;
    const refusal = this.#refusalOf(request);
    let watchId: number;
    try {
      if (refusal !== null) return this.#refuse(request, revision, cancelReasonOf(refusal));
      watchId = this.#stream.watch(request);
    } catch (error) {
      if (!(error instanceof WatchError)) throw error;
      return this.#refuse(request, revision, error.message);
    }
    this.#api.audit?.watched(this.#call, request, "");
    this.#send(encoder.encodeCreated(watchId, revision, server.replication.term));
    if (request.progressNotify && this.#progressTimer === null) {
      this.#progressTimer = server.options.clock.every(this.#api.progressIntervalMs(), () =>
        this.#stream.progressTick(),
      );
    }
  }

  #refuse(request: WatchCreateRequest, revision: number, cancelReason: string): void {
    this.#api.audit?.watched(this.#call, request, cancelReason === "" ? "REFUSED" : cancelReason);
    const fields = { watchId: WATCH_ID_ALL, created: true, canceled: true, cancelReason };
    this.#send(this.#api.encoder.encodeControl(revision, this.#api.server.replication.term, fields));
  }

  /** The watch permission is checked once, now. A negative revision is refused first, for any caller. */
  #refusalOf({ key, rangeEnd, startRevision }: WatchCreateRequest): EtcdError | null {
    const { access } = this.#api;
    if (!access.enabled || startRevision < 0) return null;
    const range = { key: key.length === 0 ? SMALLEST_KEY : key, rangeEnd };
    return access.check(this.#call, (user) => access.permissions.range(user, range));
  }

  #cancel(watchId: number): void {
    if (!this.#stream.cancel(watchId)) return;
    const { encoder, server } = this.#api;
    this.#send(encoder.encodeCanceled(watchId, this.#stream.revision, server.replication.term));
  }

  #send(response: Uint8Array): void {
    if (!this.#call.send(response)) this.#fill();
  }

  /** A response whose events are sent without a copy: other watchers may share them. */
  #sendParts(prefix: Buffer, events: Buffer): void {
    if (events.length < SHARED_BYTES_MIN) return this.#send(Buffer.concat([prefix, events]));
    this.#call.beginMessage(prefix.length + events.length);
    if (this.#call.cancelled) return;
    this.#call.writePiece(prefix);
    if (!this.#call.writePiece(events)) this.#fill();
  }

  #fill(): void {
    if (this.#full) return;
    this.#full = true;
    this.#call.pauseReading();
  }

  #drained(): void {
    if (this.#large !== undefined) {
      this.#api.slices.add(this.#goOnWithLarge);
      return;
    }
    if (!this.#full) return;
    this.#full = false;
    this.#readOn();
    this.#stream.drained();
  }

  readonly #goOnWithLarge = (): void => {
    const large = this.#large;
    if (large === undefined) return;
    let result: "more" | "wait" | "done";
    try {
      result = large.step();
    } catch (error) {
      if (!(error instanceof LargeBatchGoneError)) throw error;
      this.#large = undefined;
      this.#call.terminate(Code.UNAVAILABLE, error.message);
      return;
    }
    if (this.#call.cancelled) this.#large = undefined;
    else if (result === "more") this.#api.slices.add(this.#goOnWithLarge);
    else if (result === "done") {
      this.#large = undefined;
      this.#readOn();
      this.#stream.drained();
    }
  };

  #readOn(): void {
    if (!this.#full && !this.#isLate && this.#large === undefined) this.#call.resumeReading();
  }

  #close(): void {
    this.#large = undefined;
    this.#api.intake.forget(this);
    this.#progressTimer?.cancel();
    this.#stream.close();
  }
}

/** The start of a watch of the empty key. */
const SMALLEST_KEY = Buffer.from([0]);

/** etcd sends its clients the complete text of Go's gRPC status. */
function cancelReasonOf({ grpcCode, message }: EtcdError): string {
  return `rpc error: code = ${GO_CODE_NAMES[grpcCode] ?? grpcCode} desc = ${message}`;
}

const GO_CODE_NAMES: Readonly<Record<number, string>> = {
  [Code.INVALID_ARGUMENT]: "InvalidArgument",
  [Code.PERMISSION_DENIED]: "PermissionDenied",
  [Code.UNAUTHENTICATED]: "Unauthenticated",
};
