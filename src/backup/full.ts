/** Takes a full snapshot into a repository, by way of a scratch file, which says what revision it is. */
import type { Clock } from "../base/clock.ts";
import type { Random } from "../base/random.ts";
import { counting } from "./coding.ts";
import type { Manifest } from "./format/manifest.ts";
import type { RepositoryEnd } from "./repository.ts";
import { readStream, type Scratch, scratchIn } from "./scratch.ts";
import type { Source } from "./source.ts";

export interface FullOptions {
  readonly source: Source;
  readonly end: RepositoryEnd;
  readonly clock: Clock;
  readonly random: Random;
  readonly scratchDir: string;
  readonly signal: AbortSignal;
  readonly progress: (what: string, totalBytes: number) => { add(bytes: number): void; end(): void };
  /** The history it belongs to, given its revision; and why that begins with it. */
  readonly placeOf: (revision: number) => { readonly history: number; readonly reason?: string };
}

/** Rejects with BackupError, RpcError, SnapshotError and node's errors; nothing then counts as stored. */
export async function takeFull(options: FullOptions): Promise<Manifest> {
  const { source, end, clock, random, scratchDir, signal, progress, placeOf } = options;
  const scratch: Scratch = await scratchIn(scratchDir, random);
  try {
    const { clusterId, dbSize } = await source.state();
    const startedMs = clock.wallMs();
    const receiving = progress("receiving a full snapshot", dbSize);
    const snapshot = await source.snapshot(scratch.path("snapshot.db"), signal, (bytes) => receiving.add(bytes));
    receiving.end();
    const endedMs = clock.wallMs();
    const hash = await source.hash(snapshot.revision);
    const { revision, compactRevision } = snapshot;
    const object = {
      kind: "full" as const,
      ...placeOf(revision),
      clusterId,
      from: compactRevision,
      to: revision,
      events: 0,
      startedMs,
      endedMs,
      ...(hash === undefined ? {} : { hash }),
    };
    const storing = progress("storing it", dbSize);
    const manifest = await end.append(object, () => counting(readStream(snapshot.path), (bytes) => storing.add(bytes)));
    storing.end();
    return manifest;
  } finally {
    await scratch.remove();
  }
}
