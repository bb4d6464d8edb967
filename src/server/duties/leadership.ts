import type { Logger } from "../../base/log.ts";
import type { Lessor } from "../../lease/lessor.ts";
import { formatId } from "../../membership/member.ts";
import type { MvccStore } from "../../mvcc/store/store.ts";
import { CompactionRequest, LeaseCheckpointRequest, LeaseRevokeRequest } from "../../proto/etcdserverpb.ts";
import { EtcdError, errors } from "../contract/errors.ts";
import type { ServerMetrics } from "../contract/metrics.ts";
import type { ServerOptions } from "../contract/options.ts";
import { Op } from "../log/op.ts";
import type { RequestOf } from "../log/operations.ts";
import type { Outcome } from "../log/outcome.ts";
import { type AutoCompactor, startPeriodicCompaction, startRevisionCompaction } from "./auto-compaction.ts";

/** Lease revocations in progress at a time. */
const REVOKES_MAX = 256;

export interface LeadershipOptions {
  readonly options: ServerOptions;
  readonly lessor: Lessor;
  readonly store: MvccStore;
  readonly metrics: ServerMetrics;
  readonly isLeader: () => boolean;
  /** False after a pause of this process. */
  readonly isSteady: () => boolean;
  /** Calls back when this member's state is confirmed as the newest, or with the error. */
  readonly confirm: (done: (error: EtcdError | null) => void) => void;
  /** Proposes a request of the server itself, as root where needed. */
  readonly propose: <O extends Op>(
    op: O,
    request: RequestOf<O>,
    payload: Uint8Array,
    done: (outcome: Outcome<O>) => void,
  ) => void;
  readonly compact: (revision: number) => Promise<Outcome<typeof Op.COMPACTION>>;
}

/** The leader's duties: lease expiry, lease checkpoints, automatic compaction. */
export class Leadership {
  readonly #o: LeadershipOptions;
  readonly #logger: Logger;
  #compactor: AutoCompactor | null = null;
  #revoking = 0;
  #stopped = false;

  constructor(options: LeadershipOptions) {
    this.#o = options;
    this.#logger = options.options.logger;
  }

  /** The first entry of this leader's term is applied, and so is everything before it. */
  begin(): void {
    const { lessor, options } = this.#o;
    lessor.promote(options.electionTicks * options.tickMs);
    if (options.leaseCheckpoint) {
      lessor.setCheckpointer((checkpoints, done) => {
        const request = LeaseCheckpointRequest.create({ checkpoints });
        this.#o.propose(Op.LEASE_CHECKPOINT, request, LeaseCheckpointRequest.encode(request), (outcome) =>
          done(outcome instanceof EtcdError ? new Error(outcome.message) : null),
        );
      });
    }
    this.#startCompactor();
  }

  /** Another member is leader, or none. */
  end(): void {
    this.#o.lessor.demote();
    this.#compactor?.stop();
    this.#compactor = null;
  }

  stop(): void {
    this.#stopped = true;
    this.#compactor?.stop();
  }

  /** Proposes the revocation of expired leases, a bounded number at a time. */
  revokeExpired(): void {
    const { isLeader, isSteady, confirm } = this.#o;
    if (!isLeader() || this.#stopped) return;
    // After a pause, this member may believe that it is leader while another one is and extends the leases.
    if (isSteady()) this.#revoke();
    else {
      confirm((error) => {
        if (error === null && isLeader()) this.#revoke();
        else if (!this.#stopped) {
          this.#logger.warn("Ignore the lease revoking request because current member isn't a leader");
        }
      });
    }
  }

  #revoke(): void {
    const { lessor, metrics, propose } = this.#o;
    for (const id of lessor.expired(REVOKES_MAX - this.#revoking)) {
      this.#revoking++;
      const request = LeaseRevokeRequest.create({ id });
      propose(Op.LEASE_REVOKE, request, LeaseRevokeRequest.encode(request), (outcome) => {
        this.#revoking--;
        if (outcome instanceof EtcdError && outcome !== errors.leaseNotFound) {
          this.#logger.warn("failed to revoke lease", {
            "lease-id": formatId(BigInt.asUintN(64, id)),
            error: outcome.message,
          });
        } else metrics.leasesExpired++;
        if (this.#revoking === 0) this.revokeExpired();
      });
    }
  }

  #startCompactor(): void {
    const { options, store } = this.#o;
    const { autoCompactionMode: mode, autoCompactionRetention: retention, clock } = options;
    if (retention === 0 || this.#compactor !== null) return;
    const common = {
      clock,
      logger: this.#logger,
      revision: () => store.currentRevision,
      compact: async (revision: number): Promise<boolean> => {
        const outcome = await this.#o.compact(revision);
        return !(outcome instanceof EtcdError) || outcome === errors.compacted;
      },
    };
    this.#compactor =
      mode === "periodic"
        ? startPeriodicCompaction({ ...common, periodMs: retention })
        : startRevisionCompaction({ ...common, retention });
  }
}

/** The proposal of a compaction. */
export function compactionOf(revision: number): { request: CompactionRequest; payload: Uint8Array } {
  const request = CompactionRequest.create({ revision });
  return { request, payload: CompactionRequest.encode(request) };
}
