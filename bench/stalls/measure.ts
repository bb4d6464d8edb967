/** Runs one case on one member beside the honest client, and returns the measurements. */
import { setTimeout as sleep } from "node:timers/promises";
import type { Side } from "../report.ts";
import type { Bench, Case, Sizes } from "./case.ts";
import type { Loaded } from "./data.ts";
import type { HonestResult } from "./honest.ts";
import { longestTurn, portOf, startHonest, type Turn, termOf } from "./member.ts";

export interface CaseResult {
  readonly case: string;
  readonly side: Side;
  readonly tookMs: number;
  readonly honest: HonestResult;
  /** As the member reports it; stock etcd does not. */
  readonly turn: Turn | undefined;
  /** In a cluster: the term changed meanwhile. */
  readonly leaderChanged: boolean;
  readonly notes: readonly string[];
  /** Why there is no valid result. */
  readonly error: string | undefined;
}

/** Time for the honest client to reach its pace before counting, and to be measured after the case. */
const LEAD_MS = 500;
const TRAIL_MS = 300;

export async function measure(each: Case, side: Side, loaded: Loaded, sizes: Sizes): Promise<CaseResult> {
  const { leader: server, token, cluster } = loaded;
  const notes: string[] = [];
  const port = portOf(server);
  const bench: Bench = {
    ...{ side, server, port, sizes, token, tls: cluster.tls?.client, turnsSinceMs: undefined },
    note: (text) => void notes.push(text),
  };
  await each.prepare?.(bench);
  const honest = await startHonest({ port, pid: server.pid, token, tls: loaded.tls });
  try {
    await sleep(LEAD_MS);
    const termBefore = await termOf(server, token);
    honest.begin();
    const sinceMs = bench.turnsSinceMs ?? Date.now();
    const beganMs = performance.now();
    let error: string | undefined;
    await each.run(bench).catch((failure: Error) => (error = failure.message));
    const tookMs = performance.now() - beganMs;
    await sleep(TRAIL_MS);
    const result = await honest.end();
    const turn = side === "ours" ? await longestTurn(server, bench.tls, sinceMs) : undefined;
    const leaderChanged = (await termOf(server, token)) !== termBefore;
    return { case: each.name, side, tookMs, honest: result, turn, leaderChanged, notes, error };
  } finally {
    honest.kill();
  }
}
