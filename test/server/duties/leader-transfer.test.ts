import assert from "node:assert/strict";
import { beforeEach, describe, test } from "node:test";
import type { Cluster } from "../../../src/membership/cluster.ts";
import type { Network } from "../../../src/server/contract/network.ts";
import { LeaderTransfer } from "../../../src/server/duties/leader-transfer.ts";
import { MemoryLogger } from "../../harness/in-process.ts";
import { VirtualClock } from "../../harness/virtual-clock.ts";

const LOCAL = 1n;
const ELECTION_MS = 1000;

describe("a leader that stops", () => {
  let clock: VirtualClock;
  let logger: MemoryLogger;
  let leader: bigint;
  /** Reachable members, the longest connected first. */
  let connected: bigint[];
  let asked: bigint[];
  let onAsked: (target: bigint) => void;

  beforeEach(() => {
    clock = new VirtualClock();
    logger = new MemoryLogger();
    leader = LOCAL;
    connected = [2n, 3n];
    asked = [];
    onAsked = () => {};
  });

  const member = (id: bigint) => ({ id, isLearner: false });

  /** Milliseconds that it took. */
  async function handOver(): Promise<number> {
    const transfer = new LeaderTransfer({
      cluster: { localId: LOCAL, member, votingMembers: () => [LOCAL, 2n, 3n].map(member) } as unknown as Cluster,
      network: {
        activeSince: (id: bigint) => (connected.includes(id) ? connected.indexOf(id) : undefined),
      } as unknown as Network,
      clock,
      logger,
      leader: () => leader,
      transfer(target) {
        asked.push(target);
        onAsked(target);
      },
      tickMs: 100,
      electionMs: ELECTION_MS,
      timeoutMs: 7000,
    });
    const startMs = clock.nowMs();
    let isDone = false;
    const done = transfer.handOver().then(() => (isDone = true));
    while (!isDone) {
      clock.advance(100);
      await new Promise(setImmediate);
    }
    await done;
    return clock.nowMs() - startMs;
  }

  test("transfers to the member that has been connected longest", async () => {
    onAsked = (target) => clock.after(200, () => (leader = target));
    await handOver();
    assert.deepEqual([asked, leader], [[2n], 2n]);
    assert.ok(logger.has("leadership transfer finished"));
  });

  test("waits for the new leader while there is none, so that what still arrives can be forwarded", async () => {
    onAsked = (target) => {
      leader = 0n;
      clock.after(500, () => (leader = target));
    };
    assert.ok((await handOver()) >= 500);
    assert.deepEqual([asked, leader], [[2n], 2n]);
    assert.ok(logger.has("leadership transfer finished"));
  });

  test("says so when it leads no more and no other does within an election timeout", async () => {
    onAsked = () => (leader = 0n);
    assert.ok((await handOver()) <= ELECTION_MS + 200);
    assert.deepEqual(asked, [2n]);
    assert.ok(logger.has("leadership transfer failed"));
  });

  test("does not wait for members that have gone, as when all are stopped at once", async () => {
    onAsked = (target) => (connected = connected.filter((id) => id !== target));
    assert.ok((await handOver()) <= ELECTION_MS);
    assert.deepEqual(asked, [2n, 3n]);
    assert.ok(logger.has("leadership transfer failed"));
  });

  test("tries the next one when the first does not become leader within an election timeout", async () => {
    onAsked = (target) => {
      if (target === 3n) leader = 3n;
    };
    await handOver();
    assert.deepEqual([asked, leader], [[2n, 3n], 3n]);
    assert.ok(!logger.has("leadership transfer failed"));
  });

  test("accepts any other leader", async () => {
    onAsked = () => clock.after(100, () => (leader = 3n));
    await handOver();
    assert.deepEqual(asked, [2n]);
    assert.ok(!logger.has("leadership transfer failed"));
  });
});
