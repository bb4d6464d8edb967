import type { Clock } from "../../base/clock.ts";
import type { Logger } from "../../base/log.ts";
import type { Cluster } from "../../membership/cluster.ts";
import { additionOf, promotionOf, removalOf, updateOf } from "../../membership/conf-change.ts";
import { formatId, type Member } from "../../membership/member.ts";
import type { ConfChange } from "../../proto/raftpb.ts";
import type { RawNode } from "../../raft/rawnode.ts";
import { type ConfChangeOutcome, nameOf } from "../apply/conf-changes.ts";
import { EtcdError, errors } from "../contract/errors.ts";
import type { ServerMetrics } from "../contract/metrics.ts";
import { isActiveSince, type Network, type PeerClient, quorumOf } from "../contract/network.ts";
import type { ServerOptions } from "../contract/options.ts";
import type { RequestIdGenerator } from "../log/request-id.ts";

/** Younger connections do not count as healthy. Source: etcd `server/etcdserver/server.go`. */
const HEALTHY_AFTER_MS = 5000;
/** Fraction of the leader's log that a learner must have to be promoted. */
const LEARNER_READY_PART = 0.9;
const WAIT_APPLIED_MS = 1000;
/** Answers of the leader that a retry would not change. */
const OBJECTIONS: ReadonlySet<EtcdError> = new Set([
  errors.learnerNotReady,
  errors.memberNotFound,
  errors.memberNotLearner,
]);

/**
 * Requests to change the membership: refused if they would cost the cluster its quorum, otherwise proposed. All resolve
 * to the members after the change, or to the error. Source: etcd `server/etcdserver/server.go`.
 */
export class MembershipRequests {
  readonly #options: MembershipRequestsOptions;

  constructor(options: MembershipRequestsOptions) {
    this.#options = options;
  }

  async add(member: Member): Promise<ConfChangeOutcome> {
    const error = this.#objectionToAdding(member);
    return error ?? this.#propose(additionOf(this.#options.ids.nextBig(), member));
  }

  async remove(id: bigint): Promise<ConfChangeOutcome> {
    const error = this.#objectionToRemoving(id);
    return error ?? this.#propose(removalOf(this.#options.ids.nextBig(), id));
  }

  async update(id: bigint, peerUrls: readonly string[]): Promise<ConfChangeOutcome> {
    return this.#propose(updateOf(this.#options.ids.nextBig(), id, peerUrls));
  }

  /** Only the leader knows a learner's progress: other members ask it. */
  async promote(id: bigint, token?: string): Promise<ConfChangeOutcome> {
    const { metrics } = this.#options;
    const outcome = await this.promoteAsLeader(id);
    if (!(outcome instanceof EtcdError)) metrics.learnerPromotions++;
    else if (outcome === errors.notLeader) return this.#promoteThroughLeader(id, token);
    else {
      const failed = metrics.learnerPromotionsFailed;
      failed.set(outcome.message, (failed.get(outcome.message) ?? 0) + 1);
    }
    return outcome;
  }

  /** The same without asking other members: `notLeader` when this member is not leader. */
  async promoteAsLeader(id: bigint): Promise<ConfChangeOutcome> {
    const error = await this.#objectionToPromoting(id);
    return error ?? this.#propose(promotionOf(this.#options.ids.nextBig(), id));
  }

  #propose(change: ConfChange): Promise<ConfChangeOutcome> {
    const { memberId, logger } = this.#options;
    return new Promise((resolve) => {
      this.#options.propose(change, (outcome) => {
        logger.info("applied a configuration change through raft", {
          "local-member-id": formatId(memberId),
          "raft-conf-change": nameOf(change.type),
          "raft-conf-change-node-id": formatId(change.nodeId),
          ...(outcome instanceof EtcdError && { error: outcome.message }),
        });
        resolve(outcome);
      });
    });
  }

  #objectionToAdding(member: Member): EtcdError | undefined {
    const { cluster, strictReconfigCheck, memberId } = this.#options;
    if (!strictReconfigCheck) return undefined;
    const voters = cluster.votingMembers();
    const started = voters.filter(isStarted).length;
    const refuse = (error: EtcdError, why: string): EtcdError => {
      this.#warn(`rejecting member add request; ${why}`, { "requested-member-add": member.peerUrls }, error);
      return error;
    };
    // A single started member may add a second: this is how a cluster is restored from a backup.
    const isFirst = started === 1 && voters.length === 1;
    if (!member.isLearner && !isFirst && started < quorumOf(voters.length + 1)) {
      return refuse(errors.notEnoughStarted, "not enough healthy members");
    }
    // The new member counts as unavailable.
    if (voters.length !== 1 && this.#healthyAmong(voters, memberId) < quorumOf(voters.length + 1)) {
      return refuse(
        errors.unhealthy,
        "local member has not been connected to majority peers, reconfigure breaks active quorum",
      );
    }
    return undefined;
  }

  #objectionToRemoving(id: bigint): EtcdError | undefined {
    const { cluster, strictReconfigCheck, memberId, network } = this.#options;
    if (!strictReconfigCheck || cluster.member(id)?.isLearner === true) return undefined;
    const voters = cluster.votingMembers();
    const staying = voters.filter((member) => member.id !== id);
    const requested = { "requested-member-remove-id": formatId(id) };
    if (staying.filter(isStarted).length < quorumOf(staying.length)) {
      this.#warn("rejecting member remove request; not enough healthy members", requested, errors.notEnoughStarted);
      return errors.notEnoughStarted;
    }
    // A member that is down is not part of the live quorum.
    if (id !== memberId && network.activeSince(id) === undefined) return undefined;
    const healthy = this.#healthyAmong(voters, memberId);
    if (healthy - 1 >= 1 + Math.floor((voters.length - 1) / 2)) return undefined;
    this.#warn(
      "rejecting member remove request; local member has not been connected to all peers, reconfigure breaks active quorum",
      { "requested-member-remove": formatId(id), "active-peers": healthy },
      errors.unhealthy,
    );
    return errors.unhealthy;
  }

  async #objectionToPromoting(id: bigint): Promise<EtcdError | undefined> {
    const { node, cluster, strictReconfigCheck, logger } = this.#options;
    const late = await this.#waitUntilApplied();
    if (late !== undefined) return late;
    if (!node.isLeader) return errors.notLeader;
    const { progress } = node.status();
    const learner = progress.get(id);
    if (learner === undefined) return errors.memberNotFound;
    const part = learner.match / progress.get(node.id)!.match;
    if (part < LEARNER_READY_PART) {
      logger.error("rejecting promote learner: learner is not ready", {
        "learner-ready-percent": part,
        "ready-percent-threshold": LEARNER_READY_PART,
      });
      return errors.learnerNotReady;
    }
    if (!strictReconfigCheck) return undefined;
    const voters = cluster.votingMembers();
    // The learner counts as a started voter.
    if (1 + voters.filter(isStarted).length >= quorumOf(1 + voters.length)) return undefined;
    const requested = { "requested-member-promote-id": formatId(id) };
    this.#warn("rejecting member promote request; not enough healthy members", requested, errors.notEnoughStarted);
    return errors.notEnoughStarted;
  }

  /** Committed entries must be applied before the membership is checked. */
  async #waitUntilApplied(): Promise<EtcdError | undefined> {
    const { node, clock, appliedIndex, tickMs } = this.#options;
    const target = node.committed;
    const endMs = clock.nowMs() + WAIT_APPLIED_MS;
    while (appliedIndex() < target) {
      if (clock.nowMs() >= endMs) return errors.timeoutWaitApplied;
      await new Promise<void>((resolve) => clock.after(tickMs / 10, resolve));
    }
    return undefined;
  }

  async #promoteThroughLeader(id: bigint, token: string | undefined): Promise<ConfChangeOutcome> {
    const { node, cluster, clock, peerClient, requestTimeoutMs, electionMs } = this.#options;
    const endMs = clock.nowMs() + requestTimeoutMs;
    while (clock.nowMs() < endMs) {
      const leader = cluster.member(node.leader);
      if (leader !== undefined && leader.id !== node.id) {
        try {
          return await peerClient.promoteMember({ id: leader.id, urls: leader.peerUrls }, id, token);
        } catch (error) {
          if (error instanceof EtcdError && OBJECTIONS.has(error)) return error;
        }
      } else if (leader !== undefined) {
        const outcome = await this.promoteAsLeader(id);
        if (outcome !== errors.notLeader) return outcome;
      }
      await new Promise<void>((resolve) => clock.after(electionMs, resolve));
    }
    return node.leader === 0n ? errors.noLeader : errors.timeout;
  }

  #healthyAmong(members: readonly Member[], memberId: bigint): number {
    const beforeMs = this.#options.clock.nowMs() - HEALTHY_AFTER_MS;
    return members.filter(({ id }) => id === memberId || isActiveSince(this.#options.network, id, beforeMs)).length;
  }

  #warn(message: string, fields: Record<string, unknown>, error: EtcdError): void {
    this.#options.logger.warn(message, {
      "local-member-id": formatId(this.#options.memberId),
      ...fields,
      error: error.message,
    });
  }
}

export interface MembershipRequestsOptions
  extends Pick<ServerOptions, "network" | "peerClient" | "logger" | "clock" | "strictReconfigCheck" | "tickMs"> {
  readonly network: Network;
  readonly peerClient: PeerClient;
  readonly logger: Logger;
  readonly clock: Clock;
  readonly memberId: bigint;
  readonly cluster: Cluster;
  readonly node: RawNode;
  readonly ids: RequestIdGenerator;
  readonly metrics: ServerMetrics;
  readonly appliedIndex: () => number;
  readonly propose: (change: ConfChange, done: (outcome: ConfChangeOutcome) => void) => void;
  readonly requestTimeoutMs: number;
  readonly electionMs: number;
}

/** A member has started when it has published its name. */
function isStarted(member: Member): boolean {
  return member.name !== "";
}
