/**
 * Traces of a share of all calls: the call itself as etcd shows it (`etcdserverpb.KV/Put` and in it `put`), and the way of a
 * write through the log. Calls that are not sampled cost a look at one header and a random number; without a tracer
 * nothing is called. Sampling is that of etcd: a caller's decision counts, and others are chosen by rate.
 */
import type { Clock } from "../../base/clock.ts";
import { CODE_NAMES } from "../../base/grpc-codes.ts";
import type { Random } from "../../base/random.ts";
import type { Entry } from "../../proto/raftpb.ts";
import { type CallInfo, messageOf } from "../../rpc/contract.ts";
import type { RequestTrace, TracedProposal } from "../../server/contract/trace.ts";
import { operationOf } from "./operations.ts";
import { type AttributeValue, readTraceParent, type Span, type SpanSink } from "./span.ts";

export interface TracerOptions {
  readonly clock: Clock;
  readonly random: Random;
  /** Of calls whose caller has not decided. */
  readonly samplingRatePerMillion: number;
  readonly sink: SpanSink;
}

/** Sampled calls in progress; more are not traced. */
const CALLS_MAX = 10_000;
const MILLION = 1_000_000;

interface TracedCall {
  readonly call: CallInfo;
  readonly traceId: string;
  readonly spanId: string;
  readonly parentId: string;
  readonly state: string;
  readonly startMs: number;
  way: Way | undefined;
}

/** Times of a proposal, 0 for those that it has not reached. */
interface Way {
  readonly proposal: TracedProposal;
  readonly arrivedMs: number;
  proposedMs: number;
  writtenMs: number;
  syncedMs: number;
  committedMs: number;
  appliedMs: number;
}

export class Tracer implements RequestTrace {
  readonly #options: TracerOptions;
  readonly #calls = new Map<CallInfo, TracedCall>();
  /** Proposals that are not applied. */
  readonly #ways = new Map<TracedProposal, Way>();
  #committedMs = 0;

  constructor(options: TracerOptions) {
    this.#options = options;
  }

  // ---- for the server of calls

  readonly started = (call: CallInfo): void => {
    const parent = readTraceParent(call.header("traceparent"), call.header("tracestate"));
    const { random, samplingRatePerMillion, clock } = this.#options;
    const isSampled =
      parent?.isSampled ?? (samplingRatePerMillion > 0 && random.below(MILLION) < samplingRatePerMillion);
    if (!isSampled || this.#calls.size >= CALLS_MAX) return;
    this.#calls.set(call, {
      call,
      traceId: parent?.traceId ?? this.#id(4),
      spanId: this.#id(2),
      parentId: parent?.spanId ?? "",
      state: parent?.state ?? "",
      startMs: clock.nowMs(),
      way: undefined,
    });
  };

  readonly ended = (call: CallInfo, code: number): void => {
    const traced = this.#calls.get(call);
    if (traced === undefined) return;
    this.#calls.delete(call);
    const { way } = traced;
    if (way !== undefined) this.#ways.delete(way.proposal);
    this.#options.sink.add(this.#spansOf(traced, code));
  };

  /** A call proposes something. */
  proposes(call: CallInfo, proposal: TracedProposal): void {
    const traced = this.#calls.get(call);
    if (traced === undefined || traced.way !== undefined) return;
    const arrivedMs = this.#options.clock.nowMs();
    traced.way = { proposal, arrivedMs, proposedMs: 0, writtenMs: 0, syncedMs: 0, committedMs: 0, appliedMs: 0 };
    this.#ways.set(proposal, traced.way);
  }

  // ---- RequestTrace

  proposed(): void {
    this.#note(
      ({ proposedMs, proposal }) => proposedMs === 0 && proposal.id !== 0,
      (way, nowMs) => (way.proposedMs = nowMs),
    );
  }

  written(): void {
    this.#note(
      ({ proposedMs, writtenMs, proposal }) => proposedMs !== 0 && writtenMs === 0 && proposal.index !== 0,
      (way, nowMs) => (way.writtenMs = nowMs),
    );
  }

  synced(tookMs: number): void {
    if (this.#ways.size === 0) return;
    const beganMs = this.#options.clock.nowMs() - tookMs;
    this.#note(
      ({ writtenMs, syncedMs }) => syncedMs === 0 && writtenMs !== 0 && writtenMs <= beganMs,
      (way, nowMs) => (way.syncedMs = nowMs),
    );
  }

  committed(entries: readonly Entry[]): void {
    if (this.#ways.size === 0) return;
    this.#committedMs = this.#options.clock.nowMs();
    const last = entries.at(-1)?.index ?? 0;
    for (const way of this.#ways.values()) {
      const { index } = way.proposal;
      if (way.committedMs === 0 && index !== 0 && index <= last) way.committedMs = this.#committedMs;
    }
  }

  applied(proposal: TracedProposal): void {
    const way = this.#ways.get(proposal);
    if (way === undefined) return;
    this.#ways.delete(proposal);
    // The index of one that another member has put into the log is not known before.
    if (way.committedMs === 0) way.committedMs = this.#committedMs;
    way.appliedMs = this.#options.clock.nowMs();
  }

  // ----

  #note(applies: (way: Way) => boolean, note: (way: Way, nowMs: number) => void): void {
    if (this.#ways.size === 0) return;
    const nowMs = this.#options.clock.nowMs();
    for (const way of this.#ways.values()) if (applies(way)) note(way, nowMs);
  }

  #spansOf(traced: TracedCall, code: number): Span[] {
    const { call, traceId, parentId, state, startMs, way } = traced;
    const { clock } = this.#options;
    const endMs = clock.nowMs();
    const offsetMs = clock.wallMs() - endMs;
    const spans: Span[] = [];
    const add = (
      name: string,
      [spanId, parent]: readonly [string, string],
      [fromMs, toMs]: readonly [number, number],
      attributes: Readonly<Record<string, AttributeValue>>,
      kind: Span["kind"] = "internal",
      error?: string,
    ): void => {
      const times = { startMs: fromMs + offsetMs, endMs: toMs + offsetMs };
      spans.push({ traceId, spanId, parentId: parent, state, name, kind, ...times, attributes, error });
    };
    const name = call.path.slice(1);
    const [service = "", method = ""] = name.split("/");
    const isFault = code === 2 || code === 4 || code === 12 || code === 13 || code === 14 || code === 15;
    add(
      name,
      [traced.spanId, parentId],
      [startMs, endMs],
      { "rpc.system": "grpc", "rpc.service": service, "rpc.method": method, "rpc.grpc.status_code": code },
      "server",
      isFault ? (CODE_NAMES[code] ?? String(code)) : undefined,
    );
    const operation = operationOf(call.path, messageOf(call));
    let inner = traced.spanId;
    if (operation !== undefined) {
      inner = this.#id(2);
      add(operation.name, [inner, traced.spanId], [startMs, endMs], operation.attributes);
    }
    if (way === undefined) return spans;
    const step = (stepName: string, fromMs: number, toMs: number): void => {
      if (fromMs !== 0 && toMs >= fromMs) add(stepName, [this.#id(2), inner], [fromMs, toMs], indexOf(way.proposal));
    };
    step("proposal", way.arrivedMs, way.proposedMs);
    step("log", way.proposedMs, way.syncedMs || way.writtenMs);
    step("commit", way.proposedMs, way.committedMs);
    step("apply", way.committedMs, way.appliedMs);
    step("reply", way.appliedMs, endMs);
    return spans;
  }

  #id(words: number): string {
    let id = "";
    while (/^0*$/.test(id)) {
      id = "";
      for (let i = 0; i < words; i++)
        id += this.#options.random
          .below(2 ** 32)
          .toString(16)
          .padStart(8, "0");
    }
    return id;
  }
}

const indexOf = ({ index, term }: TracedProposal): Readonly<Record<string, number>> =>
  index === 0 ? {} : { "raft.index": index, "raft.term": term };
