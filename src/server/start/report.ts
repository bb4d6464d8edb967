import type { Clock, Timer } from "../../base/clock.ts";
import type { Logger } from "../../base/log.ts";
import { formatId, type Member } from "../../membership/member.ts";

const REPORT_MS = 5000;

/**
 * Logs every few seconds what a member that does not serve yet is waiting for: which members it cannot reach, at which
 * URLs, and what to check. Cancel it when the member serves. etcd is silent about this.
 */
export function reportWaiting(options: {
  readonly clock: Clock;
  readonly logger: Logger;
  readonly localId: bigint;
  readonly members: () => readonly Member[];
  /** When the connection to a member became active; undefined while it is not. */
  readonly activeSince: (id: bigint) => number | undefined;
  /** 0n for none. */
  readonly leader: () => bigint;
}): Timer {
  const { clock, logger, localId } = options;
  const startMs = clock.nowMs();
  const report = (): void => {
    const members = options.members();
    const others = members.filter(({ id }) => id !== localId);
    const unreachable = others.filter(({ id }) => options.activeSince(id) === undefined);
    const voters = members.filter(({ isLearner }) => !isLearner).length;
    const reachable = others.filter((member) => !unreachable.includes(member));
    const needed = Math.floor(voters / 2) + 1;
    const isQuorum = reachable.filter(({ isLearner }) => !isLearner).length + 1 >= needed;
    const fields = {
      "waiting-seconds": Math.round((clock.nowMs() - startMs) / 1000),
      "unreachable-members": unreachable.map(describe),
      "reachable-members": reachable.map(describe),
      "members-needed": needed,
    };
    if (options.leader() !== 0n) {
      logger.warn("still starting: there is a leader, and this member waits for its own entries to come back", {
        ...fields,
        leader: formatId(options.leader()),
        check: "whether the leader reaches this member at the peer URLs that it advertises",
      });
    } else if (isQuorum && others.length > 0) {
      logger.warn("still starting: enough members are reachable, but none has become leader yet", {
        ...fields,
        check:
          "the log for cluster ID mismatches, and whether the others reach this member at the peer URLs that it advertises",
      });
    } else {
      logger.warn("still starting: too few of the other members are reachable to elect a leader", {
        ...fields,
        check:
          "whether these members run, listen on those URLs (--listen-peer-urls), use the same TLS settings and were given the same --initial-cluster and --initial-cluster-token, and whether a firewall stands between",
      });
    }
  };
  return clock.every(REPORT_MS, report);
}

/** "b at http://10.0.0.2:2380" */
const describe = ({ id, name, peerUrls }: Member): string => `${name || formatId(id)} at ${peerUrls.join(", ")}`;
