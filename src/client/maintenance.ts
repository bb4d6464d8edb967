/** Work on single members: status, backups, alarms, defragmentation. */
import { createHash } from "node:crypto";
import { KvorumError } from "../base/errors.ts";
import { KVService, MaintenanceService } from "../proto/etcdserverpb.ts";
import type { Caller } from "./caller.ts";
import { messagesOf } from "./messages.ts";
import type { CallOptions } from "./options.ts";

/** The state of a member, as it says itself. */
export interface Status {
  readonly memberId: bigint;
  readonly clusterId: bigint;
  readonly version: string;
  /** Empty before etcd 3.6. */
  readonly storageVersion: string;
  readonly revision: number;
  /** The id of the leader; 0n without one. */
  readonly leader: bigint;
  readonly isLearner: boolean;
  readonly raftTerm: number;
  readonly raftIndex: number;
  readonly raftAppliedIndex: number;
  /** Bytes of the database, and of these in use. */
  readonly dbSize: number;
  readonly dbSizeInUse: number;
  readonly errors: readonly string[];
}

/** An alarm of a member: NOSPACE stops writes, CORRUPT everything. */
export interface Alarm {
  readonly memberId: bigint;
  readonly alarm: "NOSPACE" | "CORRUPT";
}

/** The end of a backup is missing, or it is not what its hash says. */
export class SnapshotError extends KvorumError {
  override name = "SnapshotError";
  readonly code = "ERR_SNAPSHOT";
}

const HASH_BYTES = 32;
const ALARMS = ["", "NOSPACE", "CORRUPT"] as const;

/**
 * Work on single members, `client.maintenance`. With the option `endpoint` it is that member, otherwise one of them.
 *
 * @example
 * const { leader, dbSize } = await client.maintenance.status({ endpoint: "10.0.0.1:2379" });
 */
export class Maintenance {
  readonly #caller: Caller;

  /** @internal */
  constructor(caller: Caller) {
    this.#caller = caller;
  }

  /** The state of the member that answers. */
  status(options?: CallOptions): Promise<Status> {
    return this.#caller.unary(MaintenanceService.Status, {}, "read", options, (answer) => ({
      memberId: answer.header?.memberId ?? 0n,
      clusterId: answer.header?.clusterId ?? 0n,
      version: answer.version,
      storageVersion: answer.storageVersion,
      revision: answer.header?.revision ?? 0,
      leader: answer.leader,
      isLearner: answer.isLearner,
      raftTerm: answer.raftTerm,
      raftIndex: answer.raftIndex,
      raftAppliedIndex: answer.raftAppliedIndex,
      dbSize: answer.dbSize,
      dbSizeInUse: answer.dbSizeInUse,
      errors: answer.errors,
    }));
  }

  /**
   * Forgets the history up to a revision, which can no longer be read or watched from. `physical` waits until the space is
   * free for new data.
   */
  compact(revision: number, options?: CallOptions & { readonly physical?: boolean }): Promise<void> {
    const request = { revision, physical: options?.physical ?? false };
    return this.#caller.unary(KVService.Compact, request, "write", options, () => undefined);
  }

  /** Gives free space of the member that answers back to its file system. It may serve nothing meanwhile. */
  defragment(options?: CallOptions): Promise<void> {
    return this.#caller.unary(MaintenanceService.Defragment, {}, "write", options, () => undefined);
  }

  /** The hash of all keys at a revision; the newest when 0. Members with the same data have the same. */
  hash(
    revision = 0,
    options?: CallOptions,
  ): Promise<{ readonly hash: number; readonly compactRevision: number; readonly hashRevision: number }> {
    return this.#caller.unary(MaintenanceService.HashKV, { revision }, "read", options, (answer) => ({
      hash: answer.hash,
      compactRevision: answer.compactRevision,
      hashRevision: answer.hashRevision,
    }));
  }

  /** All alarms. */
  alarms(options?: CallOptions): Promise<readonly Alarm[]> {
    const request = { action: 0 as const, memberId: 0n, alarm: 0 as const };
    return this.#caller.unary(MaintenanceService.Alarm, request, "read", options, ({ alarms }) =>
      alarms.flatMap(({ memberId, alarm }) => {
        const name = ALARMS[alarm];
        return name ? [{ memberId, alarm: name }] : [];
      }),
    );
  }

  /** Ends an alarm; all of them when none is given. */
  async disarm(alarm?: Alarm, options?: CallOptions): Promise<void> {
    for (const { memberId, alarm: name } of alarm === undefined ? await this.alarms(options) : [alarm]) {
      const request = { action: 2 as const, memberId, alarm: name === "NOSPACE" ? (1 as const) : (2 as const) };
      await this.#caller.unary(MaintenanceService.Alarm, request, "write", options, () => undefined);
    }
  }

  /** Makes another voter the leader. Only the leader can be asked. */
  moveLeader(memberId: bigint, options?: CallOptions): Promise<void> {
    const request = { targetId: memberId };
    return this.#caller.unary(MaintenanceService.MoveLeader, request, "write", options, () => undefined);
  }

  /**
   * A backup of the member that answers, piece by piece, as `etcdctl snapshot save` writes it: the database, then its
   * SHA-256. Throws SnapshotError at the end when the two do not agree.
   *
   * @example
   * await pipeline(client.maintenance.snapshot(), createWriteStream("backup.db"));
   */
  async *snapshot(options: CallOptions = {}): AsyncGenerator<Uint8Array, void, undefined> {
    const hash = createHash("sha256");
    let tail = Buffer.alloc(0);
    let total = 0;
    for await (const { blob } of messagesOf(this.#caller, MaintenanceService.Snapshot, {}, options)) {
      total += blob.length;
      const joined = Buffer.concat([tail, blob]);
      const keep = Math.max(0, joined.length - HASH_BYTES);
      hash.update(joined.subarray(0, keep));
      tail = Buffer.from(joined.subarray(keep));
      yield blob;
    }
    if (total % 512 !== HASH_BYTES) throw new SnapshotError(`the backup of ${total} bytes has no hash at its end`);
    if (!tail.equals(hash.digest()))
      throw new SnapshotError("the backup is not what its hash says: it was damaged on its way");
  }
}
