/** A watch of a correct client: when its stream breaks it resumes where it was, at the same member or another. */
import { setTimeout as sleep } from "node:timers/promises";
import { type RawStream, RpcError } from "../../src/client/raw.ts";
import {
  WatchCreateRequest,
  WatchProgressRequest,
  WatchRequest,
  type WatchResponse,
  WatchService,
} from "../../src/proto/etcdserverpb.ts";
import { Event_EventType } from "../../src/proto/mvccpb.ts";
import { kvOf, text } from "../sim/checkers/model.ts";
import type { WatchLog } from "../sim/checkers/watch.ts";
import type { Recorder, Target } from "./recorder.ts";

export interface WatchSettings {
  readonly key: string;
  readonly end: string;
  readonly prevKv: boolean;
  /** 0 for new events only. */
  readonly startRevision: number;
  /** The member of its next stream; undefined while there is none. */
  readonly target: () => Target | undefined;
  /** Milliseconds after which it repeatedly breaks its own stream; never when absent. */
  readonly breakMs?: number;
}

const RETRY_MS = 100;
/** Interval of progress requests while everything comes to rest. */
const ASK_MS = 100;

export class Watcher {
  readonly log: WatchLog;
  readonly #recorder: Recorder;
  readonly #settings: WatchSettings;
  readonly #running: Promise<void>;
  #stream: RawStream<WatchRequest, WatchResponse> | undefined;
  /** The next revision it needs; 0 while unknown. */
  #next: number;
  #closed = false;
  #broken: string | undefined;

  constructor(recorder: Recorder, settings: WatchSettings) {
    this.#recorder = recorder;
    this.#settings = settings;
    this.#next = settings.startRevision;
    this.log = {
      id: recorder.next(),
      key: settings.key,
      end: settings.end,
      prevKv: settings.prevKv,
      noPut: false,
      noDelete: false,
      steps: [],
    };
    this.#running = this.#run();
  }

  /** Waits until it has everything up to `revision`; returns what is wrong if that does not happen. */
  async settle(revision: number, timeoutMs: number): Promise<string | undefined> {
    const deadline = this.#recorder.now + timeoutMs;
    while (this.#next <= revision && this.#broken === undefined && this.#recorder.now < deadline) {
      this.#stream?.send(WatchRequest.create({ progressRequest: WatchProgressRequest.create() })).catch(() => {});
      await sleep(ASK_MS);
    }
    if (this.#broken !== undefined) return this.#broken;
    this.log.steps.push({ kind: "settled", moment: this.#recorder.now });
    return this.#next > revision
      ? undefined
      : `watch ${this.log.id} got to ${this.#next - 1} of ${revision} within ${timeoutMs} ms of rest`;
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#stream?.cancel();
    await this.#running;
  }

  async #run(): Promise<void> {
    while (!this.#closed && this.#broken === undefined) {
      const target = this.#settings.target();
      if (target !== undefined) await this.#follow(target);
      if (!this.#closed) await sleep(RETRY_MS);
    }
  }

  async #follow(target: Target): Promise<void> {
    const startRevision = this.#next;
    const { key, end, prevKv, breakMs } = this.#settings;
    const stream = target.client.stream(WatchService.Watch);
    this.#stream = stream;
    const timer = breakMs === undefined ? undefined : setTimeout(() => stream.cancel(), breakMs);
    try {
      const createRequest = WatchCreateRequest.create({
        key: Buffer.from(key, "latin1"),
        rangeEnd: Buffer.from(end, "latin1"),
        startRevision,
        prevKv,
        progressNotify: true,
      });
      stream.send(WatchRequest.create({ createRequest })).catch(() => {});
      for await (const response of stream) {
        this.#receive(response, startRevision);
        if (response.canceled) break;
      }
    } catch (error) {
      if (!(error instanceof RpcError)) throw error;
    } finally {
      clearTimeout(timer);
      stream.cancel();
      this.#stream = undefined;
    }
  }

  #receive(response: WatchResponse, startRevision: number): void {
    const moment = this.#recorder.now;
    const { steps } = this.log;
    const revision = response.header?.revision ?? 0;
    this.#recorder.tellRevision(revision);
    if (response.created && !response.canceled) {
      steps.push({ kind: "created", startRevision, revision, moment });
      if (this.#next === 0) this.#next = revision + 1;
    } else if (response.compactRevision > 0) {
      steps.push({ kind: "compacted", compactRevision: response.compactRevision, moment });
      this.#next = Math.max(this.#next, response.compactRevision);
    } else if (response.canceled) {
      // A member that stops ends its streams; only its own error is a refusal.
      if (response.cancelReason !== "") this.#broken = `watch ${this.log.id} was cancelled: ${response.cancelReason}`;
    } else if (response.events.length === 0) {
      steps.push({ kind: "progress", revision, moment });
      this.#next = Math.max(this.#next, revision + 1);
    } else {
      const events = response.events.map(({ type, kv, prevKv }) => ({
        key: text(kv!.key),
        kv: type === Event_EventType.PUT ? kvOf(kv) : undefined,
        mod: kv!.modRevision,
        prev: kvOf(prevKv),
      }));
      steps.push({ kind: "events", revision, events, moment });
      this.#next = Math.max(this.#next, events.at(-1)!.mod + 1);
    }
  }
}
