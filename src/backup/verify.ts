/**
 * Checks a repository: every manifest, every digest, and, by doing it, that it brings a cluster back: a full snapshot with
 * the deltas on it becomes a database in a scratch directory, whose HashKV is compared with what the cluster had reported.
 */
import type { Clock } from "../base/clock.ts";
import type { Disk } from "../base/disk.ts";
import type { Random } from "../base/random.ts";
import { BoltError } from "../bolt/format.ts";
import { BoltReader } from "../bolt/reader.ts";
import { hashKvOf } from "../utl/kv-hash.ts";
import type { Identity } from "./age/keys.ts";
import { storedBytes } from "./coding.ts";
import { BackupError } from "./error.ts";
import { nameOfManifest, VERIFIED, type Verification } from "./format/manifest.ts";
import { type History, hashesFor, historiesOf, type Target } from "./histories.ts";
import { type RebuildOptions, rebuild } from "./rebuild.ts";
import { readRepository } from "./repository.ts";
import { scratchIn } from "./scratch.ts";
import { once, readSmall, type Store } from "./store/store.ts";

export interface VerifyOptions {
  readonly store: Store;
  readonly disk: Disk;
  readonly clock: Clock;
  readonly random: Random;
  readonly identities: readonly Identity[];
  readonly scratchDir: string;
  /** Manifests and lengths only: nothing is downloaded. */
  readonly isQuick: boolean;
  /** Restores every full snapshot, not only the newest. */
  readonly all: boolean;
  readonly progress: RebuildOptions["progress"];
}

export interface VerifyReport {
  readonly objects: number;
  /** Each names the object it is about. */
  readonly problems: readonly string[];
  /** What no manifest names. */
  readonly strays: readonly string[];
  readonly restored: readonly RestoredFull[];
}

export interface RestoredFull {
  readonly full: number;
  readonly revision: number;
  /** Revisions whose HashKV agreed with the cluster's. */
  readonly compared: readonly number[];
}

/** Throws BackupError when the store does not answer. */
export async function verify(options: VerifyOptions): Promise<VerifyReport> {
  const { store, clock, isQuick, progress } = options;
  const contents = await readRepository(store);
  const problems = [...contents.problems];
  const manifests = contents.objects.map(({ manifest }) => manifest);
  checkCoverage(historiesOf(manifests), problems);
  const restored: RestoredFull[] = [];
  if (!isQuick) {
    const total = manifests.reduce((sum, { data }) => sum + (data?.sizeBytes ?? 0), 0);
    const reading = progress("comparing digests", Math.max(1, total));
    for (const { data } of manifests) {
      if (data === undefined) continue;
      await noted(problems, async () => {
        for await (const chunk of storedBytes(store, data)) reading.add(chunk.length);
      });
    }
    reading.end();
    for (const target of targetsOf(historiesOf(manifests), options.all)) {
      const done = await noted(problems, () => restoreOf(options, target, problems));
      if (done !== undefined) restored.push(done);
    }
    const last = restored.at(-1);
    if (problems.length === 0 && last !== undefined) {
      const verification: Verification = { full: last.full, revision: last.revision, atMs: Math.floor(clock.wallMs()) };
      await store.put(VERIFIED, once(Buffer.from(`${JSON.stringify(verification)}\n`)), { ifAbsent: false });
    }
  }
  const unique = [...new Set(problems)];
  return { objects: manifests.length, problems: unique, strays: contents.strays.map(({ name }) => name), restored };
}

/** When it was last verified; undefined when it never was. */
export async function lastVerification(store: Store): Promise<Verification | undefined> {
  try {
    const value: Verification = JSON.parse((await readSmall(store, VERIFIED, 4096)).toString());
    return Number.isFinite(value.atMs) && Number.isFinite(value.revision) ? value : undefined;
  } catch (error) {
    if (error instanceof SyntaxError || (error instanceof BackupError && error.code === "ERR_BACKUP_NO_OBJECT")) {
      return undefined;
    }
    throw error;
  }
}

/** The deltas of a history must follow each other. */
function checkCoverage(histories: readonly History[], problems: string[]): void {
  for (const { fulls, deltas } of histories) {
    let reached = fulls[0]?.to;
    for (const { number, from, to } of deltas) {
      if (reached !== undefined && from > reached) {
        problems.push(`${nameOfManifest(number)} begins after revision ${from}, the one before ends at ${reached}`);
      }
      reached = to;
    }
  }
}

/** Full snapshots with all deltas on them. */
function targetsOf(histories: readonly History[], all: boolean): readonly Target[] {
  const targets = histories.flatMap((history) =>
    history.fulls.map((full): Target => {
      const deltas = history.deltas.filter(({ to }) => to > full.to);
      const next = all ? history.fulls.find(({ to, number }) => number > full.number && to > full.to) : undefined;
      // Up to the next full snapshot, which is restored itself, or to the end.
      const needed = next === undefined ? deltas : deltas.filter(({ from }) => from < next.to);
      return { full, deltas: needed, revision: Math.max(full.to, ...needed.map(({ to }) => to)), history };
    }),
  );
  return all ? targets : targets.slice(-1);
}

async function restoreOf(options: VerifyOptions, target: Target, problems: string[]): Promise<RestoredFull> {
  const { disk, store, identities, random, scratchDir, progress } = options;
  const scratch = await scratchIn(scratchDir, random);
  try {
    const path = scratch.path("restored.db");
    await rebuild({ disk, store, identities, target, scratch: scratch.path, path, progress });
    const reader = new BoltReader({ disk, path });
    const compared: number[] = [];
    try {
      for (const { revision, compactRevision, hash } of hashesFor(target)) {
        const own = hashKvOf(reader, revision, compactRevision);
        // A file that has compacted later than the cluster had then has another hash.
        if (own.compactRevision !== compactRevision && compactRevision >= 0) continue;
        if (own.hash === hash) compared.push(revision);
        else {
          problems.push(
            `full snapshot ${target.full.number} with its deltas has HashKV ${own.hash} at revision ${revision}, the cluster had ${hash}`,
          );
        }
      }
    } finally {
      reader.close();
    }
    return { full: target.full.number, revision: target.revision, compared };
  } finally {
    await scratch.remove();
  }
}

/** Runs it; what is damaged becomes a problem. */
async function noted<T>(problems: string[], work: () => Promise<T>): Promise<T | undefined> {
  try {
    return await work();
  } catch (error) {
    const isOperating = error instanceof BackupError && error.code !== "ERR_BACKUP_STORE";
    if (!isOperating && !(error instanceof BoltError)) throw error;
    problems.push(error.message);
    return undefined;
  }
}
