import type { Timer } from "../../base/clock.ts";
import { goDuration } from "../../base/duration.ts";
import { formatId } from "../../membership/member.ts";
import type { ServerOptions } from "../contract/options.ts";

const LOOK_MS = 50;
const GIVE_UP_MS = 5000;

/**
 * Advances a starting member most of the way to its first election, once it has had a chance to hear from a leader:
 * with long election timeouts, waiting for a whole one would be useless. Source: etcd `server/etcdserver/server.go`,
 * `adjustTicks`.
 */
export function startElectionTicks(options: {
  server: Pick<ServerOptions, "clock" | "logger" | "electionTicks" | "tickMs" | "initialElectionTickAdvance">;
  memberId: bigint;
  memberCount: number;
  activePeers: () => number;
  advance: (ticks: number) => void;
}): Timer {
  const { server, memberId, memberCount, activePeers, advance } = options;
  const { clock, logger, electionTicks, tickMs } = server;
  if (!server.initialElectionTickAdvance || memberCount <= 1) {
    if (memberCount > 1) logger.info("skipping initial election tick advance", { "election-ticks": electionTicks });
    return { cancel() {} };
  }
  logger.info("starting initial election tick advance", { "election-ticks": electionTicks });
  const endMs = clock.nowMs() + GIVE_UP_MS;
  const advanceWhenConnected = (): void => {
    const active = activePeers();
    if (active > 1) {
      const ticks = electionTicks - 2;
      logger.info("initialized peer connections; fast-forwarding election ticks", {
        "local-member-id": formatId(memberId),
        "forward-ticks": ticks,
        "forward-duration": goDuration(ticks * tickMs),
        "election-ticks": electionTicks,
        "election-timeout": goDuration(electionTicks * tickMs),
        "active-remote-members": active,
      });
      advance(ticks);
    }
    if (active > 1 || clock.nowMs() >= endMs) timer.cancel();
  };
  const timer = clock.every(LOOK_MS, advanceWhenConnected);
  return timer;
}
