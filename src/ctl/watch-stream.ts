/**
 * A watch that survives its connection: when the stream is lost, it resumes from the revision after the last one seen.
 * Source: etcd v3.7, client/v3/watch.go.
 */
import type { Clock } from "../base/clock.ts";
import type { RawStream } from "../client/raw.ts";
import { WatchCreateRequest, type WatchRequest, WatchResponse, WatchService } from "../proto/etcdserverpb.ts";
import type { Cluster } from "./connection.ts";
import { describeError, isRpcError, UNAVAILABLE } from "./exit.ts";

const RETRY_WAIT_MS = 100;
const INTERNAL = 13;

export class WatchStream {
  readonly #cluster: Cluster;
  readonly #clock: Clock;
  readonly #request: Partial<WatchCreateRequest>;
  #next: number;
  #stream: RawStream<WatchRequest, WatchResponse> | undefined;

  constructor(cluster: Cluster, clock: Clock, request: Partial<WatchCreateRequest>) {
    this.#cluster = cluster;
    this.#clock = clock;
    this.#request = request;
    this.#next = request.startRevision ?? 0;
  }

  /** Requests the watch's progress; the answer is a response without events. */
  async requestProgress(): Promise<void> {
    await this.#stream?.send({ progressRequest: {} });
  }

  /** Ends the watch. */
  cancel(): void {
    this.#stream?.cancel();
  }

  /** Events, progress and, if the server ends the watch, a last response with `canceled`. */
  async *responses(): AsyncGenerator<WatchResponse, void, void> {
    for (;;) {
      try {
        this.#stream = await this.#cluster.stream(WatchService.Watch, { requireLeader: true });
        const createRequest = WatchCreateRequest.create({ ...this.#request, startRevision: this.#next });
        await this.#stream.send({ createRequest });
        let ended = true;
        for await (const response of this.#stream) {
          ended = false;
          this.#advance(response);
          if (response.canceled || !response.created) yield response;
          if (response.canceled) return;
        }
        if (ended) return;
      } catch (error) {
        if (!isRpcError(error)) throw error;
        if (await this.#cluster.passOver(error, this.#stream)) continue;
        if (error.code !== UNAVAILABLE && error.code !== INTERNAL) {
          yield WatchResponse.create({ canceled: true, cancelReason: describeError(error) });
          return;
        }
      }
      this.#cluster.moveOn();
      await new Promise<void>((resolve) => this.#clock.after(RETRY_WAIT_MS, resolve));
    }
  }

  #advance(response: WatchResponse): void {
    const last = response.events.at(-1)?.kv?.modRevision;
    if (last !== undefined) this.#next = last + 1;
    else if (response.header !== undefined && !response.canceled && (this.#next === 0 || !response.created)) {
      this.#next = Math.max(this.#next, response.header.revision + 1);
    }
  }
}

/** Why the server ended a watch, in etcdctl's words. */
export function cancelReason(response: WatchResponse): string {
  if (response.compactRevision !== 0) return "etcdserver: mvcc: required revision has been compacted";
  if (response.cancelReason === "") return "etcdserver: mvcc: required revision is a future revision";
  return /desc = (etcdserver: .*)$/s.exec(response.cancelReason)?.[1] ?? response.cancelReason;
}
