import assert from "node:assert/strict";
import { beforeEach, describe, test } from "node:test";
import { InProcessHub } from "../../../src/embedded/network.ts";
import { type Message, MessageType } from "../../../src/proto/raftpb.ts";
import { newMessage } from "../../../src/raft/messages.ts";
import { ServerMetrics } from "../../../src/server/contract/metrics.ts";
import { Outbox } from "../../../src/server/replication/outbox.ts";
import { MemoryLogger } from "../../harness/in-process.ts";
import { VirtualClock } from "../../harness/virtual-clock.ts";

const { MsgApp, MsgAppResp, MsgHeartbeat, MsgSnap, MsgVote } = MessageType;

describe("the outbox", () => {
  let clock: VirtualClock;
  let logger: MemoryLogger;
  let metrics: ServerMetrics;
  let sent: Message[];
  let snapshots: Message[];
  let removed: Set<bigint>;
  let outbox: Outbox;

  beforeEach(() => {
    clock = new VirtualClock();
    logger = new MemoryLogger();
    metrics = new ServerMetrics();
    sent = [];
    snapshots = [];
    removed = new Set();
    const network = new InProcessHub(clock).join(1n);
    network.send = (messages) => sent.push(...messages);
    outbox = new Outbox({
      network,
      isRemoved: (id) => removed.has(id),
      sendSnapshot: (message) => snapshots.push(message),
      metrics,
      logger,
      clock,
      heartbeatMs: 100,
    });
  });

  const message = (type: Message["type"], to: bigint, index = 0): Message => ({ ...newMessage(type, to), index });
  const summary = (): string[] => sent.map(({ type, to, index }) => `${type}→${to}@${index}`);

  test("keeps the order, and drops nothing that matters", () => {
    outbox.send([message(MsgApp, 2n, 1), message(MsgApp, 3n, 1), message(MsgVote, 2n, 2)]);
    assert.deepEqual(summary(), [`${MsgApp}→2@1`, `${MsgApp}→3@1`, `${MsgVote}→2@2`]);
  });

  test("sends only the last of several acknowledgements to one member", () => {
    outbox.send([message(MsgAppResp, 2n, 1), message(MsgApp, 2n, 9), message(MsgAppResp, 2n, 2)]);
    assert.deepEqual(summary(), [`${MsgApp}→2@9`, `${MsgAppResp}→2@2`]);
  });

  test("sends nothing to removed members, and nothing at all when that is all", () => {
    removed.add(2n);
    outbox.send([message(MsgApp, 2n), message(MsgApp, 3n)]);
    assert.deepEqual(summary(), [`${MsgApp}→3@0`]);
    outbox.send([message(MsgApp, 2n)]);
    assert.equal(sent.length, 1);
  });

  test("diverts snapshots", () => {
    outbox.send([message(MsgSnap, 2n), message(MsgApp, 3n)]);
    assert.deepEqual(summary(), [`${MsgApp}→3@0`]);
    assert.equal(snapshots.length, 1);
  });

  test("reports when a heartbeat is sent more than two intervals after the last, for each member", () => {
    outbox.send([message(MsgHeartbeat, 2n), message(MsgHeartbeat, 3n)]);
    clock.advance(200);
    outbox.send([message(MsgHeartbeat, 2n)]);
    assert.equal(metrics.heartbeatSendFailures, 0);
    clock.advance(50);
    outbox.send([message(MsgHeartbeat, 2n), message(MsgHeartbeat, 3n)]);
    assert.equal(metrics.heartbeatSendFailures, 1);
    const line = logger.lines.at(-1)!;
    assert.match(line.message, /^leader failed to send out heartbeat on time/);
    assert.equal(line.fields["to"], "3");
    assert.equal(line.fields["exceeded-duration"], "50ms");
  });

  test("starts again with a new leader", () => {
    outbox.send([message(MsgHeartbeat, 2n)]);
    clock.advance(10_000);
    outbox.reset();
    outbox.send([message(MsgHeartbeat, 2n)]);
    assert.equal(metrics.heartbeatSendFailures, 0);
  });
});
