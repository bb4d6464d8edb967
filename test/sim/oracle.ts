/**
 * Observes everything: compares what each member applies, at that moment, with what others applied before. Builds the
 * history of revisions that the checkers compare clients with.
 */
import { isDeepStrictEqual } from "node:util";
import { FROM_KEY } from "../../src/mvcc/model/types.ts";
import { WatchResponse } from "../../src/proto/etcdserverpb.ts";
import { type Event, Event_EventType, KeyValue } from "../../src/proto/mvccpb.ts";
import type { RawNode } from "../../src/raft/rawnode.ts";
import { Invariants } from "../raft/harness/invariants.ts";
import type { Finding, Operation, Revision } from "./checkers/history.ts";
import { showEvents } from "./checkers/linearizability.ts";
import { KeySpace, kvOf, type ModelEvent, text } from "./checkers/model.ts";
import type { Running, SimMachine } from "./machine.ts";
import type { Scheduler } from "./scheduler.ts";

export interface SeenRevision extends Revision {
  readonly seenMs: number;
}

export interface AppliedCompaction extends Operation {
  readonly action: { readonly kind: "compact"; readonly revision: number };
  readonly atMs: number;
}

const ALL = Buffer.from([0]);

export class Oracle {
  readonly revisions: SeenRevision[] = [];
  /** The state at every revision so far. */
  readonly space = new KeySpace();
  readonly findings: Finding[] = [];
  /** Compactions, as first applied by any member. */
  readonly compactions: AppliedCompaction[] = [];
  /** Addresses of members whose state is known to be wrong. */
  readonly excused = new Set<string>();
  readonly #scheduler: Scheduler;
  readonly #trace: (line: string) => void;
  readonly #invariants = new Invariants();
  /** The values of raft's invariants at the last check. */
  readonly #seen = new WeakMap<RawNode, { term: number; last: number; committed: number; leads: boolean }>();

  constructor(scheduler: Scheduler, trace: (line: string) => void) {
    this.#scheduler = scheduler;
    this.#trace = trace;
  }

  /** Terms that had a leader. */
  get leaders(): number {
    return this.#invariants.counts.leaders;
  }

  add(checker: string, message: string): void {
    this.findings.push({ checker, message, moment: this.#scheduler.moment });
    this.#trace(`FOUND ${checker}: ${message}`);
  }

  /** Observes a member from start to end. */
  observe(machine: SimMachine, running: Running): void {
    const { server } = running;
    this.#invariants.restarted(running.parts.memberId);
    this.#checkState(machine, running, "after its start");
    const compact = server.store.compact.bind(server.store);
    server.store.compact = (revision) => {
      this.#compacted(machine, revision);
      return compact(revision);
    };
    const watch = (): void => {
      stream.watch({
        key: ALL,
        rangeEnd: ALL,
        startRevision: server.store.currentRevision + 1,
        watchId: 0,
        filters: [],
        prevKv: false,
        progressNotify: false,
        fragment: false,
      });
    };
    const stream = server.watchHub.newStream({
      deliver: (_watch, batch) => {
        this.#delivered(machine, batch.decodedEvents());
        return true;
      },
      deliverLarge: (_watch, batch) => {
        while (!batch.measure());
        const pieces = Array.from({ length: batch.pieceCount }, (_, i) => batch.piece(i));
        this.#delivered(machine, WatchResponse.decode(Buffer.concat(pieces)).events);
        server.options.clock.defer(() => stream.drained());
        return true;
      },
      deliverCompacted: () => {
        // It got the state from another member and skipped what is compacted there.
        server.options.clock.defer(watch);
        return true;
      },
      deliverProgress: () => true,
    });
    watch();
  }

  /** Checks raft's invariants whenever one of their values has changed. */
  step(machines: readonly SimMachine[]): void {
    let changed = false;
    for (const { running } of machines) if (running !== undefined && this.#hasMoved(running)) changed = true;
    if (!changed) return;
    const nodes = machines.flatMap(({ running }) =>
      running === undefined ? [] : [{ id: running.parts.memberId, node: running.parts.node }],
    );
    try {
      this.#invariants.check(nodes);
    } catch (error) {
      this.add("raft", error instanceof Error ? error.message : String(error));
    }
  }

  #hasMoved({ parts: { node } }: Running): boolean {
    const { log } = node.raft;
    const now = { term: node.term, last: log.lastIndex(), committed: log.committed, leads: node.isLeader };
    const before = this.#seen.get(node);
    if (
      before?.term === now.term &&
      before.last === now.last &&
      before.committed === now.committed &&
      before.leads === now.leads
    ) {
      return false;
    }
    this.#seen.set(node, now);
    return true;
  }

  /** The member's state must equal the state of that revision. */
  checkState(machine: SimMachine, when: string): void {
    if (machine.running !== undefined) this.#checkState(machine, machine.running, when);
  }

  #checkState(machine: SimMachine, { server }: Running, when: string): void {
    if (this.excused.has(machine.url)) return;
    const { store } = server;
    const revision = store.currentRevision;
    if (revision > this.space.revision) {
      this.add("state", `${machine.name} is at revision ${revision} ${when}, which nobody was seen to apply`);
      return;
    }
    const { kvs } = store.rangeDecoded(ALL, FROM_KEY, { revision: 0, limit: 0, countOnly: false });
    const found = kvs.map((kv) => kvOf(kv)!);
    const expected = this.space.keys().flatMap((key) => this.space.at(key, revision) ?? []);
    if (isDeepStrictEqual(found, expected)) return;
    const events = (list: typeof found): string => showEvents(list.map((kv) => ({ key: kv.key, kv })));
    this.add(
      "state",
      `${machine.name} has ${events(found)} at revision ${revision} ${when}, but it was ${events(expected)}`,
    );
  }

  #compacted({ name }: SimMachine, revision: number): void {
    if ((this.compactions.at(-1)?.action.revision ?? 0) >= revision) return;
    this.compactions.push({
      id: -1,
      client: "the members",
      member: name,
      action: { kind: "compact", revision },
      invoked: this.#scheduler.moment,
      returned: Number.POSITIVE_INFINITY,
      outcome: { kind: "unknown", error: "" },
      atMs: this.#scheduler.nowMs,
    });
  }

  #delivered(machine: SimMachine, delivered: readonly Event[]): void {
    let events: ModelEvent[] = [];
    let revision = 0;
    for (const { type, kv } of delivered) {
      if (kv!.modRevision !== revision) {
        if (events.length > 0) this.#applied(machine, revision, events);
        events = [];
        revision = kv!.modRevision;
      }
      events.push({ key: text(kv!.key), kv: type === Event_EventType.PUT ? kvOf(kv) : undefined });
    }
    if (events.length > 0) this.#applied(machine, revision, events);
  }

  /** Watchers get the store's rows: otherwise all members could agree on the same wrong events. */
  #checkRows(machine: SimMachine, revision: number, events: readonly ModelEvent[]): void {
    const { store } = machine.running!.server;
    if (revision <= store.compactRevision || this.excused.has(machine.url)) return;
    const rows: string[] = [];
    store.forEachRevision(revision, revision + 1, 0, (_main, _sub, tombstone, bytes, start, end) => {
      rows.push(`${tombstone ? "delete" : "put"} ${text(KeyValue.decode(bytes.subarray(start, end)).key)}`);
      return true;
    });
    const told = events.map(({ key, kv }) => `${kv === undefined ? "delete" : "put"} ${key}`);
    if (isDeepStrictEqual(rows, told)) return;
    const message = `${machine.name} tells watchers of [${told.join(", ")}] at revision ${revision}, but has [${rows.join(", ")}]`;
    this.add("watch", message);
  }

  #applied(machine: SimMachine, revision: number, events: readonly ModelEvent[]): void {
    this.#checkRows(machine, revision, events);
    const known = this.revisions[revision - 2];
    if (known === undefined) {
      if (revision !== this.space.revision + 1) {
        this.add("state", `${machine.name} made revision ${revision} after ${this.space.revision}`);
        return;
      }
      this.revisions.push({ revision, events, seen: this.#scheduler.moment, seenMs: this.#scheduler.nowMs });
      this.space.append(events);
      this.#trace(`revision ${revision} ${showEvents(events)} first at ${machine.name}`);
    } else if (!isDeepStrictEqual(known.events, events)) {
      this.add(
        "state",
        `revision ${revision} is ${showEvents(events)} at ${machine.name}, but was ${showEvents(known.events)} before`,
      );
    }
  }
}
