/** The cluster that is backed up: its snapshots, its state, and the leases that its keys name. */

import type { Disk } from "../base/disk.ts";
import type { Client } from "../client/client.ts";
import { counting } from "./coding.ts";
import { rangeOfFile } from "./database.ts";
import type { RecordedHash } from "./format/manifest.ts";
import { writeStream } from "./scratch.ts";

export interface Snapshot {
  readonly path: string;
  readonly revision: number;
  readonly compactRevision: number;
}

export interface ClusterState {
  readonly clusterId: string;
  /** No change after this one was acknowledged when it was asked for. */
  readonly revision: number;
  /** Of the database of the member that answered. */
  readonly dbSize: number;
}

/** Leases asked for at the same time. */
const ASKERS = 8;

export class Source {
  readonly client: Client;
  readonly #disk: Disk;

  constructor(client: Client, disk: Disk) {
    this.client = client;
    this.#disk = disk;
  }

  async state(): Promise<ClusterState> {
    const status = await this.client.maintenance.status();
    // A linearizable read: the member that reports its status may be behind.
    const { revision } = await this.client.bytes.range("\0", { limit: 1, keysOnly: true });
    return { clusterId: status.clusterId.toString(16), revision, dbSize: status.dbSize };
  }

  /** A full snapshot as a file, as `etcdctl snapshot save` writes it; its hash is compared. */
  async snapshot(path: string, signal: AbortSignal, received: (bytes: number) => void): Promise<Snapshot> {
    await writeStream(
      path,
      counting(this.client.maintenance.snapshot({ signal, timeoutMs: Number.POSITIVE_INFINITY }), received),
    );
    return { path, ...rangeOfFile(this.#disk, path) };
  }

  /** HashKV of a revision; undefined when the member cannot say, because it is behind or has compacted it. */
  async hash(revision: number): Promise<RecordedHash | undefined> {
    try {
      const { hash, compactRevision } = await this.client.maintenance.hash(revision, { timeoutMs: HASH_MS_MAX });
      return { revision, compactRevision, hash };
    } catch {
      return undefined;
    }
  }

  /** Seconds that leases were granted for; 0 for those that are gone. */
  async grantedSeconds(ids: readonly bigint[]): Promise<Map<bigint, number>> {
    const found = new Map<bigint, number>();
    let next = 0;
    const ask = async (): Promise<void> => {
      for (let i = next++; i < ids.length; i = next++) {
        const { ttl, grantedTtl } = await this.client.leases.timeToLive(ids[i]!);
        found.set(ids[i]!, ttl < 0 ? 0 : grantedTtl);
      }
    };
    await Promise.all(Array.from({ length: ASKERS }, ask));
    return found;
  }
}

const HASH_MS_MAX = 120_000;
