import assert from "node:assert/strict";
import { before, test } from "node:test";
import { withCluster } from "../harness/cluster.ts";
import type { Operation } from "../sim/checkers/history.ts";
import { type Answer, answerWrote } from "../sim/checkers/model.ts";
import type { WatchLog, WatchStep } from "../sim/checkers/watch.ts";
import { type History, judge } from "./history.ts";
import { Load } from "./load.ts";

// The checkers must be able to reject a history of real members: one valid history, and the findings in altered copies.

let history: History;

before(async () => {
  await withCluster({ members: ["ours"] }, async (cluster) => {
    const load = new Load({ rate: 60 });
    try {
      load.start(cluster.all);
      const { recorder } = load;
      const until = recorder.now + 20_000;
      const enough = () =>
        recorder.operations.length > 250 && recorder.leases.some(({ renewals }) => renewals.length > 0);
      while (!enough() && recorder.now < until) await new Promise((resolve) => setTimeout(resolve, 50));
      await load.stop();
      const finished = await load.finish();
      assert.deepEqual(finished.problems, []);
      history = finished.history;
    } finally {
      await load.close();
    }
  });
});

/** A copy to alter. */
const copied = (): History => structuredClone(history);

const found = (doctored: History): string[] => judge(doctored).findings.map(({ message }) => message);

const isWrite = ({ outcome, action }: Operation): boolean =>
  outcome.kind === "ok" && action.kind === "put" && answerWrote(outcome.answer as Answer);

type EventStep = Extract<WatchStep, { kind: "events" }>;

/** The last step with events of a watch that had several. */
function eventsOf({ steps }: WatchLog): EventStep[] {
  return steps.filter((step): step is EventStep => step.kind === "events");
}

const richest = (watches: readonly WatchLog[]): WatchLog =>
  watches.reduce((best, each) => (eventsOf(each).length > eventsOf(best).length ? each : best));

test("the history of real clients and a healthy member has no findings", () => {
  assert.deepEqual(found(history), []);
});

test("an acknowledged write that no member has is found", () => {
  const doctored = copied();
  const last = Math.max(...doctored.operations.map(({ outcome }) => (outcome.kind === "ok" ? outcome.revision : 0)));
  const write = doctored.operations.findLast(isWrite)!;
  write.outcome = { kind: "ok", revision: last + 1, answer: { kind: "put", prev: undefined } };
  assert.match(found(doctored).join("\n"), /was acknowledged as revision \d+, which no member has/);
});

test("a change that no client requested is found", () => {
  const doctored = copied();
  const write = doctored.operations.findIndex(isWrite);
  const without = { ...doctored, operations: doctored.operations.filter((_, i) => i !== write) };
  assert.match(found(without).join("\n"), /nothing that any client asked for makes revision/);
});

test("a stale linearizable read is found", () => {
  const doctored = copied();
  const { operations } = doctored;
  const reads = operations.filter(
    ({ action, outcome }) => action.kind === "range" && !action.request.serializable && outcome.kind === "ok",
  );
  const early = reads[0]!;
  const late = reads.at(-1)!;
  // As if the late one had asked the early one's question and got the same answer.
  const stale: Operation = { ...late, action: early.action, outcome: early.outcome };
  const messages = found({ ...doctored, operations: operations.map((each) => (each === late ? stale : each)) });
  assert.equal(messages.length, 1, messages.join("\n"));
  assert.match(messages[0]!, /read revision \d+, but \d+ was known before it began/);
});

test("a wrong value in an answer is found", () => {
  const doctored = copied();
  for (const { outcome, action } of doctored.operations) {
    if (action.kind !== "range" || outcome.kind !== "ok") continue;
    const { kvs } = outcome.answer as { kvs: { value: string }[] };
    if (kvs.length === 0) continue;
    kvs[0]!.value = "other";
    break;
  }
  assert.match(found(doctored).join("\n"), /must answer range.*but answered range.*=other@/);
});

test("an event that a watch did not get is found", () => {
  const doctored = copied();
  const watch = richest(doctored.watches);
  const gone = eventsOf(watch).at(-2)!;
  watch.steps.splice(watch.steps.indexOf(gone), 1);
  assert.match(found(doctored).join("\n"), new RegExp(`^watch ${watch.id} on .*(must get|lacks|never got)`, "m"));
});

test("an event that a watch got twice is found", () => {
  const doctored = copied();
  const watch = richest(doctored.watches);
  watch.steps.splice(watch.steps.indexOf(eventsOf(watch).at(-1)!), 0, eventsOf(watch).at(-2)!);
  assert.match(found(doctored).join("\n"), new RegExp(`^watch ${watch.id} on .*must get`, "m"));
});

test("a member whose revisions differ is found", () => {
  const doctored = copied();
  const other = structuredClone(doctored.observed[0]!);
  const [step] = eventsOf(other.log).filter(({ events }) => events[0]?.kv !== undefined);
  (step!.events[0]!.kv as { value: string }).value = "other";
  const both = { ...doctored, observed: [...doctored.observed, { member: "m2", log: other.log }] };
  assert.match(found(both).join("\n"), /^revision \d+ is .*=other@.* at m2, but/m);
});

test("a lease that ended before its time is found", () => {
  const doctored = copied();
  const leases = doctored.leases.map((lease) => (lease.renewals.length > 0 ? { ...lease, ttl: 1_000 } : lease));
  const ended = { ...doctored, leases: leases.map((lease) => ({ ...lease, revokeInvoked: Number.POSITIVE_INFINITY })) };
  assert.match(found(ended).join("\n"), /lease \d+ was over \d+.* ms before its time/);
});
