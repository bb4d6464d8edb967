import assert from "node:assert/strict";
import { test } from "node:test";
import { MessageType } from "../../src/proto/raftpb.ts";
import { DOCTORS } from "./tla/doctor.ts";
import { kindOf, type TraceEvent, toNdjson } from "./tla/event.ts";
import { recordRun, runOptions } from "./tla/run.ts";
import { scenarioTraces } from "./tla/scenarios.ts";
import { recordServers } from "./tla/servers.ts";

/** TLC and the specification are not needed here: `npm run tla` uses them. */
const traces = Array.from({ length: 40 }, (_, i) => recordRun(runOptions(i + 1, 300)));

test("traces are JSON lines with the fields of etcd's state tracer, in order of time", () => {
  let before = 0;
  for (const line of toNdjson(traces[0]!.finish()).trimEnd().split("\n")) {
    const { tag, ts, event } = JSON.parse(line) as { tag: string; ts: number; event: TraceEvent };
    assert.equal(tag, "trace");
    assert.ok(ts > before, line);
    before = ts;
    assert.match(event.name, /^[A-Z][A-Za-z]+$/);
    assert.match(event.nid, /^[1-9]\d*$/);
    assert.ok(["StateFollower", "StateCandidate", "StateLeader"].includes(event.role), line);
    for (const number of [event.state.term, event.state.commit, event.log])
      assert.ok(Number.isSafeInteger(number), line);
    for (const id of [event.state.vote, ...event.conf.flat()]) assert.match(id, /^\d+$/);
    assert.equal(event.msg !== undefined, /^(Send|Receive)/.test(event.name), line);
    assert.equal(event.prop !== undefined, /^(Change|ApplyConf)/.test(event.name), line);
  }
});

test("every message that a trace receives was sent before, at most once, and came after its sender's Ready", () => {
  for (const tracer of traces) {
    const sent = new Map<string, number>();
    const waiting = new Map<string, string[]>();
    for (const { name, nid, msg } of tracer.finish()) {
      const key = JSON.stringify(msg);
      if (name.startsWith("Send")) waiting.set(nid, [...(waiting.get(nid) ?? []), key]);
      else if (name === "Ready") {
        for (const ready of waiting.get(nid) ?? []) sent.set(ready, (sent.get(ready) ?? 0) + 1);
        waiting.delete(nid);
      } else if (name.startsWith("Receive")) {
        assert.ok((sent.get(key) ?? 0) > 0, `received but not sent: ${key}`);
        assert.equal(nid, msg!.to);
        sent.set(key, sent.get(key)! - 1);
      } else if (name === "InitState") waiting.delete(nid);
    }
  }
});

test("between two events a node's state changes only as the later one may change it", () => {
  for (const tracer of traces) {
    const seen = new Map<string, TraceEvent>();
    for (const event of tracer.finish()) {
      const before = seen.get(event.nid);
      seen.set(event.nid, event);
      if (before === undefined) continue;
      const text = JSON.stringify([before, event]);
      assert.ok(event.state.term >= before.state.term || event.name === "InitState", text);
      assert.ok(event.state.commit >= before.state.commit || event.name === "InitState", text);
      assert.ok(event.state.commit <= event.log, text);
      if (event.name === "BecomeLeader") assert.equal(before.role, "StateCandidate", text);
      if (event.name === "BecomeCandidate") assert.equal(event.state.vote, event.nid, text);
    }
  }
});

test("the runs do everything that the specification knows", () => {
  const seen = new Set<string>();
  for (const { events } of traces) {
    const started = new Set<string>();
    for (const { name, nid, msg, prop } of events) {
      seen.add(name === "InitState" && started.has(nid) ? "restart" : name);
      if (name !== "InitState") started.add(nid);
      if (msg !== undefined) seen.add(msg.type).add(msg.reject ? `${msg.type} rejected` : msg.type);
      for (const { action } of prop?.cc.changes ?? []) seen.add(action);
    }
  }
  const expected = ["InitState", "restart", "BecomeCandidate", "BecomeFollower", "BecomeLeader", "Commit", "Replicate"];
  expected.push("ChangeConf", "ApplyConfChange", "AddNewServer", "AddLearner", "RemoveServer", "Ready");
  expected.push("MsgApp", "MsgAppResp", "MsgAppResp rejected", "MsgHeartbeat", "MsgHeartbeatResp", "MsgSnap");
  expected.push("MsgVote", "MsgVoteResp", "MsgVoteResp rejected");
  for (const kind of new Set(Object.values(MessageType).map((type) => kindOf(type)))) {
    if (kind !== undefined) expected.push(`Send${kind}`, `Receive${kind}`);
  }
  assert.deepEqual(
    expected.filter((name) => !seen.has(name)),
    [],
  );
});

test("each lie finds a trace to be told in, and changes it", () => {
  for (const { name, apply } of DOCTORS) {
    const told = traces.filter(({ events }) => {
      const lie = apply(events);
      if (lie !== undefined) assert.notDeepEqual(lie, events, name);
      return lie !== undefined;
    });
    assert.ok(told.length > 0, name);
  }
});

test("a trace ends where the specification cannot follow, with the reason", () => {
  const ends = new Map([...scenarioTraces()].map(({ name, tracer }) => [name, tracer.endedBy]));
  assert.equal(ends.get("group/confchange_demote_through_joint.txt"), "a change by joint consensus");
  assert.equal(ends.get("group/confchange_learner_becomes_voter.txt"), "a group that begins with learners");
  assert.equal(ends.get("group/replication_divergent_tail.txt"), undefined);
});

test("the same seed records the same trace", () => {
  assert.equal(toNdjson(recordRun(runOptions(5, 300)).events), toNdjson(recordRun(runOptions(5, 300)).events));
});

test("whole servers are recorded too, until one of them restarts", async () => {
  const tracer = await recordServers(2, 300);
  const names = new Set(tracer.finish().map(({ name }) => name));
  assert.equal(tracer.events.length, 300);
  for (const name of ["BecomeLeader", "Replicate", "Commit", "ReceiveAppendEntriesResponse"] as const) {
    assert.ok(names.has(name), name);
  }
});
