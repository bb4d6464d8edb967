/**
 * Backs up one cluster into one repository: full snapshots on a schedule, and the changes between them all the time.
 *
 * Promises: the deltas of a history follow each other without a gap; what is not in one is either still to come or in an
 * object of the kind "hole". It resumes from the last stored revision. Memory: one delta, and what the watch holds for a
 * slow reader.
 */
import type { Clock } from "../base/clock.ts";
import { messageOf } from "../base/errors.ts";
import type { Random } from "../base/random.ts";
import { humanBytes } from "../base/table.ts";
import { type WatchBatch, WatchCompactedError } from "../client/watch-events.ts";
import { BackupError } from "./error.ts";
import { DeltaWriter } from "./format/delta.ts";
import type { Manifest, RecordedHash } from "./format/manifest.ts";
import { type FullOptions, takeFull } from "./full.ts";
import type { Resume } from "./histories.ts";
import type { RepositoryEnd } from "./repository.ts";
import type { Source } from "./source.ts";

export interface RecorderSettings {
  /** Milliseconds between full snapshots. */
  readonly fullEveryMs: number;
  /** Milliseconds after which received changes are stored. */
  readonly deltaEveryMs: number;
  /** Milliseconds between two hashes asked of the cluster, against which a restore is compared. */
  readonly hashEveryMs: number;
  /** Bytes of changes that are stored at once. */
  readonly deltaBytesMax: number;
}

export interface RecorderOptions {
  readonly source: Source;
  readonly end: RepositoryEnd;
  readonly resume: Resume;
  readonly clock: Clock;
  readonly random: Random;
  readonly scratchDir: string;
  readonly settings: RecorderSettings;
  readonly signal: AbortSignal;
  readonly progress: FullOptions["progress"];
  /** What happens, for the log: one line. */
  readonly say: (text: string) => void;
  readonly stored: (manifest: Manifest) => void;
  readonly failed: (error: unknown) => void;
}

type Batches = AsyncGenerator<WatchBatch<Uint8Array, Uint8Array>, void, undefined>;

const RETRY_FIRST_MS = 500;
const RETRY_MAX_MS = 60_000;
/** How often the head notes that nothing happens. */
const SEEN_EVERY_MS = 60_000;
const FULL_RETRY_MS = 300_000;
const KNOWN_LEASES_MAX = 100_000;

export class Recorder {
  readonly #options: RecorderOptions;
  readonly #known = new Set<bigint>();
  #history: number;
  /** The last revision that is stored; undefined until the first full snapshot. */
  #to: number | undefined;
  #clusterId: string;
  #lastFullMs: number;
  /** Why the next full snapshot begins a history. */
  #reason: string | undefined;
  #lastHashMs = Number.NEGATIVE_INFINITY;
  #failures = 0;

  constructor(options: RecorderOptions) {
    this.#options = options;
    const { history, clusterId, to, lastFullMs } = options.resume;
    this.#history = history;
    this.#clusterId = clusterId;
    this.#to = to;
    this.#lastFullMs = lastFullMs;
    this.#reason = options.resume.reason;
  }

  /** Until the signal fires. Rejects when another process writes into the repository. */
  async run(): Promise<void> {
    const { signal, clock, failed, say } = this.#options;
    while (!signal.aborted) {
      try {
        await this.#session();
      } catch (error) {
        if (signal.aborted) return;
        if (error instanceof BackupError && error.code === "ERR_BACKUP_CONFLICT") throw error;
        failed(error);
        const pauseMs = Math.min(RETRY_MAX_MS, RETRY_FIRST_MS * 2 ** Math.min(this.#failures++, 10));
        say(`${messageOf(error)}; trying again in ${Math.ceil(pauseMs / 1000)} s`);
        await pause(clock, pauseMs, signal);
      }
    }
  }

  /** One full snapshot, and nothing else. */
  async once(): Promise<Manifest> {
    await this.#compareWithCluster();
    return this.#full();
  }

  /** Resumes, and records until something fails. */
  async #session(): Promise<void> {
    await this.#compareWithCluster();
    if (this.#to === undefined) await this.#full();
    const { source, signal, say } = this.#options;
    // It may have been told to stop meanwhile, of which no event comes any more.
    if (signal.aborted) return;
    const watch = new AbortController();
    const stop = (): void => watch.abort(signal.reason);
    signal.addEventListener("abort", stop);
    try {
      const from = this.#to!;
      say(`recording changes after revision ${from}`);
      const watcher = source.client.bytes.watch({ all: true }, { revision: from + 1, signal: watch.signal });
      await this.#record(watcher.batches());
    } catch (error) {
      if (!(error instanceof WatchCompactedError)) throw error;
      await this.#hole(
        error.compactRevision,
        `the cluster compacted up to ${error.compactRevision} before it was stored`,
      );
    } finally {
      signal.removeEventListener("abort", stop);
      watch.abort(new Error("the recording is over"));
    }
  }

  /** Another cluster, or the same one with older data, needs a history of its own. */
  async #compareWithCluster(): Promise<void> {
    const { clusterId, revision } = await this.#options.source.state();
    if (this.#to !== undefined && clusterId !== this.#clusterId) {
      this.#begin(`the cluster is another one: its id is ${clusterId}, it was ${this.#clusterId}`);
    } else if (this.#to !== undefined && revision < this.#to) {
      this.#begin(`the cluster was put back: it is at revision ${revision}, and ${this.#to} is stored`);
    }
    this.#clusterId = clusterId;
  }

  #begin(reason: string): void {
    this.#options.say(`${reason}; a new history begins with a full snapshot`);
    this.#reason = reason;
    this.#to = undefined;
  }

  async #hole(compactRevision: number, reason: string): Promise<void> {
    const { end, clock, say, stored } = this.#options;
    const nowMs = clock.wallMs();
    const from = this.#to!;
    say(`HOLE: the changes after revision ${from} are lost: ${reason}. A full snapshot follows at once`);
    const times = { startedMs: nowMs, endedMs: nowMs };
    const [history, clusterId, to] = [this.#history, this.#clusterId, Math.max(from + 1, compactRevision - 1)];
    stored(await end.append({ kind: "hole", history, clusterId, from, to, events: 0, ...times, reason }));
    this.#reason = reason;
    this.#to = undefined;
  }

  async #full(): Promise<Manifest> {
    const { source, end, clock, random, scratchDir, signal, progress, stored, say } = this.#options;
    const startedMs = clock.wallMs();
    const begins = this.#to === undefined;
    const history = begins ? this.#history + 1 : this.#history;
    const reason = this.#reason;
    const place = { history, ...(begins && reason !== undefined ? { reason } : {}) };
    const placeOf = () => place;
    const manifest = await takeFull({ source, end, clock, random, scratchDir, signal, progress, placeOf });
    this.#lastFullMs = startedMs;
    this.#history = history;
    if (begins) {
      this.#to = manifest.to;
      this.#reason = undefined;
      this.#known.clear();
    }
    say(
      `stored full snapshot ${manifest.number}: revision ${manifest.to}, ${humanBytes(manifest.data?.sizeBytes ?? 0)}`,
    );
    stored(manifest);
    return manifest;
  }

  /** One that fails is tried again later: the changes are recorded all the same. */
  async #scheduledFull(): Promise<void> {
    const { clock, settings, signal, failed, say } = this.#options;
    try {
      await this.#full();
    } catch (error) {
      if (error instanceof BackupError && error.code === "ERR_BACKUP_CONFLICT") throw error;
      if (signal.aborted) return;
      const pauseMs = Math.min(FULL_RETRY_MS, settings.fullEveryMs);
      this.#lastFullMs = clock.wallMs() - settings.fullEveryMs + pauseMs;
      failed(error);
      say(`no full snapshot: ${messageOf(error)}; trying again in ${Math.ceil(pauseMs / 1000)} s`);
    }
  }

  async #record(batches: Batches): Promise<void> {
    const { clock, settings, signal } = this.#options;
    let delta = new DeltaWriter(this.#to!);
    let firstMs = 0;
    let leases = new Set<bigint>();
    let seenAtMs = clock.nowMs();
    let dueMs = Number.POSITIVE_INFINITY;
    const full = new Background();
    let next = batches.next();
    // Looked at in every turn, also when something else fails first.
    next.catch(() => {});
    let tick = pause(clock, LOOK_MS, signal);
    try {
      for (;;) {
        full.check();
        if (!full.isBusy && clock.wallMs() - this.#lastFullMs >= settings.fullEveryMs) {
          this.#lastFullMs = clock.wallMs();
          full.start(() => this.#scheduledFull());
        }
        const arrived = await Promise.race([next, tick]);
        if (signal.aborted) break;
        if (arrived === undefined) tick = pause(clock, LOOK_MS, signal);
        else {
          next = batches.next();
          next.catch(() => {});
          if (arrived.done) break;
          this.#failures = 0;
          const wallMs = clock.wallMs();
          for (const event of arrived.value.events) {
            if (delta.events === 0) {
              firstMs = wallMs;
              dueMs = clock.nowMs() + settings.deltaEveryMs;
            }
            const kv = event.type === "put" ? event.kv : undefined;
            if (!delta.add({ key: event.key, revision: event.revision, kv })) {
              await this.#store(delta, firstMs, leases);
              return this.#hole(event.revision, `the watch went from revision ${delta.revision} to ${event.revision}`);
            }
            if (kv !== undefined && kv.lease !== 0n && !this.#known.has(kv.lease)) leases.add(kv.lease);
          }
          if (arrived.value.events.length > 0) delta.mark(wallMs);
        }
        if (delta.events > 0 && (clock.nowMs() >= dueMs || delta.sizeBytes >= settings.deltaBytesMax)) {
          await this.#store(delta, firstMs, leases);
          delta = new DeltaWriter(this.#to!);
          leases = new Set();
          dueMs = Number.POSITIVE_INFINITY;
          seenAtMs = clock.nowMs();
        } else if (delta.events === 0 && clock.nowMs() - seenAtMs >= SEEN_EVERY_MS) {
          seenAtMs = clock.nowMs();
          await this.#options.end.seen(clock.wallMs());
        }
      }
    } finally {
      // What was received is stored also when the process is told to stop.
      if (delta.events > 0 && delta.revision > this.#to!) await this.#store(delta, firstMs, leases);
      await full.done;
    }
  }

  /** Stores a delta, again and again until the store takes it or the process is told to stop. */
  async #store(delta: DeltaWriter, startedMs: number, leases: ReadonlySet<bigint>): Promise<void> {
    const { source, end, clock, settings, signal, stored, failed, say } = this.#options;
    if (delta.events === 0) return;
    if (!delta.isFinished) await this.#addLeases(delta, leases);
    let hash: RecordedHash | undefined;
    if (!signal.aborted && clock.nowMs() - this.#lastHashMs >= settings.hashEveryMs) {
      hash = await source.hash(delta.revision);
      if (hash !== undefined) this.#lastHashMs = clock.nowMs();
    }
    const [history, clusterId, from, to] = [this.#history, this.#clusterId, this.#to!, delta.revision];
    const { events } = delta;
    const times = { startedMs, endedMs: clock.wallMs() };
    const object = { kind: "delta" as const, history, clusterId, from, to, events, ...times };
    const parts = delta.finish();
    for (let tries = 0; ; tries++) {
      try {
        const plain = async function* () {
          yield* parts;
        };
        stored(await end.append({ ...object, ...(hash === undefined ? {} : { hash }) }, plain));
        break;
      } catch (error) {
        const isLost = error instanceof BackupError && error.code === "ERR_BACKUP_CONFLICT";
        if (isLost || signal.aborted) throw error;
        failed(error);
        const pauseMs = Math.min(RETRY_MAX_MS, RETRY_FIRST_MS * 2 ** Math.min(tries, 10));
        say(`changes up to revision ${to} cannot be stored: ${messageOf(error)}; trying again`);
        await pause(clock, pauseMs, signal);
      }
    }
    this.#to = to;
  }

  async #addLeases(delta: DeltaWriter, leases: ReadonlySet<bigint>): Promise<void> {
    if (leases.size === 0) return;
    const asked = await this.#options.source.grantedSeconds([...leases]).catch(() => new Map<bigint, number>());
    if (this.#known.size > KNOWN_LEASES_MAX) this.#known.clear();
    for (const id of leases) {
      const ttl = asked.get(id) ?? 0;
      delta.lease(id, ttl);
      if (ttl > 0) this.#known.add(id);
    }
  }
}

/** How often the schedule is looked at. */
const LOOK_MS = 200;

/** One thing that is done beside the recording. */
class Background {
  isBusy = false;
  done: Promise<void> = Promise.resolve();
  #failure: { readonly error: unknown } | undefined;

  start(work: () => Promise<unknown>): void {
    this.isBusy = true;
    this.done = work().then(
      () => {
        this.isBusy = false;
      },
      (error: unknown) => {
        this.isBusy = false;
        this.#failure = { error };
      },
    );
  }

  /** Throws what it failed with. */
  check(): void {
    const failure = this.#failure;
    this.#failure = undefined;
    if (failure !== undefined) throw failure.error;
  }
}

function pause(clock: Clock, ms: number, signal: AbortSignal): Promise<undefined> {
  return new Promise((resolve) => {
    const end = (): void => {
      timer.cancel();
      signal.removeEventListener("abort", end);
      resolve(undefined);
    };
    const timer = clock.after(ms, end);
    if (signal.aborted) end();
    else signal.addEventListener("abort", end);
  });
}
