import type { Timer } from "../base/clock.ts";
import { Code } from "../base/grpc-codes.ts";
import { ProtobufError } from "../base/protobuf.ts";
import type { WatchBatch } from "../mvcc/watch-batch.ts";
import { WatchResponseEncoder } from "../mvcc/watch-encoding.ts";
import type { WatchStream } from "../mvcc/watch-stream.ts";
import { WATCH_ID_ALL, type Watch, WatchError, type WatchSink } from "../mvcc/watch-types.ts";
import { type WatchCreateRequest, WatchRequest, WatchService } from "../proto/etcdserverpb.ts";
import type { RpcRegistry, StreamCall } from "../rpc/server.ts";
import type { EtcdError } from "../server/errors.ts";
import type { EtcdServer } from "../server/server.ts";
import type { Access } from "./access.ts";

/** Added to the largest request for the limit of a response piece. Source: etcd `server/config`. */
export const GRPC_OVERHEAD_BYTES = 512 * 1024;
/** Shortest `--watch-progress-notify-interval`. */
const PROGRESS_INTERVAL_MIN_MS = 100;

/** The service Watch. Source: etcd `server/etcdserver/api/v3rpc/watch.go`. */
export class WatchApi {
  readonly server: EtcdServer;
  readonly access: Access;
  readonly encoder: WatchResponseEncoder;
  readonly #progressIntervalMs: number;
  readonly fragmentBytesMax: number;

  constructor(server: EtcdServer, access: Access, progressNotifyIntervalMs: number) {
    this.server = server;
    this.access = access;
    this.encoder = new WatchResponseEncoder(server.cluster.id, server.memberId);
    this.#progressIntervalMs = Math.max(PROGRESS_INTERVAL_MIN_MS, progressNotifyIntervalMs);
    this.fragmentBytesMax = server.options.maxRequestBytes + GRPC_OVERHEAD_BYTES;
  }

  register(rpc: RpcRegistry): void {
    rpc.stream(WatchService.Watch.path, (call) => {
      new ServerWatchStream(this, call);
    });
  }

  /** With a tenth of jitter, so that streams which began together do not notify together. */
  progressIntervalMs(): number {
    const { random } = this.server.options;
    return this.#progressIntervalMs + random.below(Math.max(1, Math.floor(this.#progressIntervalMs / 10)));
  }
}

/** One Watch call: the requests of a client, and the sink of what its watchers get. */
class ServerWatchStream implements WatchSink {
  readonly #api: WatchApi;
  readonly #call: StreamCall;
  readonly #stream: WatchStream;
  /** The client reads slower than it asked: events wait in the store, requests in the socket. */
  #full = false;
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
    if (this.#full) return false;
    const { encoder, server, fragmentBytesMax } = this.#api;
    if (!watch.fragment) this.#send(encoder.encodeEvents(batch, watch.id, server.term));
    else {
      const pieces = encoder.encodeFragments(batch, watch.id, server.term, fragmentBytesMax);
      for (const piece of pieces) this.#send(piece);
    }
    return true;
  }

  deliverCompacted(watch: Watch, compactRevision: number): boolean {
    if (this.#full) return false;
    this.#send(this.#api.encoder.encodeCompacted(watch.id, compactRevision, this.#api.server.term));
    return true;
  }

  deliverProgress(watchId: number, revision: number): boolean {
    if (this.#full) return false;
    this.#send(this.#api.encoder.encodeProgress(watchId, revision, this.#api.server.term));
    return true;
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
  }

  #create(request: WatchCreateRequest): void {
    const { encoder, server } = this.#api;
    const revision = this.#stream.revision;
    let fields: { watchId: number; created: boolean; canceled?: boolean; cancelReason?: string };
    const refusal = this.#refusalOf(request);
    if (refusal !== null) {
      fields = { watchId: WATCH_ID_ALL, created: true, canceled: true, cancelReason: cancelReasonOf(refusal) };
      this.#send(encoder.encodeControl(revision, server.term, fields));
      return;
    }
    try {
      fields = { watchId: this.#stream.watch(request), created: true };
    } catch (error) {
      if (!(error instanceof WatchError)) throw error;
      fields = { watchId: WATCH_ID_ALL, created: true, canceled: true, cancelReason: error.message };
    }
    this.#send(encoder.encodeControl(revision, server.term, fields));
    if (request.progressNotify && this.#progressTimer === null) {
      this.#progressTimer = server.options.clock.every(this.#api.progressIntervalMs(), () =>
        this.#stream.progressTick(),
      );
    }
  }

  /** Whether the caller may watch this is decided once, now. A negative revision is refused as such, whoever asks. */
  #refusalOf({ key, rangeEnd, startRevision }: WatchCreateRequest): EtcdError | null {
    const { access } = this.#api;
    if (!access.enabled || startRevision < 0) return null;
    const range = { key: key.length === 0 ? SMALLEST_KEY : key, rangeEnd };
    return access.check(this.#call, (user) => access.permissions.range(user, range));
  }

  #cancel(watchId: number): void {
    if (!this.#stream.cancel(watchId)) return;
    const { encoder, server } = this.#api;
    this.#send(encoder.encodeControl(this.#stream.revision, server.term, { watchId, canceled: true }));
  }

  #send(response: Uint8Array): void {
    if (this.#call.send(response) || this.#full) return;
    this.#full = true;
    this.#call.pauseReading();
  }

  #drained(): void {
    if (!this.#full) return;
    this.#full = false;
    this.#call.resumeReading();
    this.#stream.drained();
  }

  #close(): void {
    this.#progressTimer?.cancel();
    this.#stream.close();
  }
}

/** What a watch of the empty key begins with. */
const SMALLEST_KEY = Buffer.from([0]);

/** etcd gives its clients the whole text that Go makes of a gRPC status. */
function cancelReasonOf({ code, message }: EtcdError): string {
  return `rpc error: code = ${GO_CODE_NAMES[code] ?? code} desc = ${message}`;
}

const GO_CODE_NAMES: Readonly<Record<number, string>> = {
  [Code.INVALID_ARGUMENT]: "InvalidArgument",
  [Code.PERMISSION_DENIED]: "PermissionDenied",
  [Code.UNAUTHENTICATED]: "Unauthenticated",
};
