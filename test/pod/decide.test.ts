import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { FlagSet } from "../../src/base/flags.ts";
import { type Action, decide, type Facts, type MemberFacts, surplus } from "../../src/pod/decide.ts";
import { POD_FLAGS, type PodSettings, podSettings } from "../../src/pod/settings.ts";

const CLUSTER = 0xc1n;
const OWN = 0xa1n;

describe("a pod with data", () => {
  const withData = (facts: Partial<Facts>, settings: Partial<PodSettings> = {}) =>
    decided({ data: { memberId: OWN, clusterId: CLUSTER }, ...facts }, settings);

  test("starts when nobody answers, as when all pods restart at once", () => {
    assert.equal(withData({}).do, "start");
  });

  test("starts when the cluster knows it under its address", () => {
    assert.equal(withData({ cluster: answers(member(0), member(1, OWN), member(2)) }).do, "start");
  });

  test("has its address changed first when the cluster knows another", () => {
    const moved = { ...member(1, OWN), peerUrls: ["http://elsewhere:2380"] };
    assert.equal(withData({ cluster: answers(member(0), moved) }).do, "update");
  });

  test("gives its data up when its member was removed from the same cluster", () => {
    assert.equal(withData({ cluster: answers(member(0), member(2)) }).do, "discard");
  });

  test("waits for a person, and keeps its data, when the others are another cluster", () => {
    const action = withData({ cluster: { kind: "answers", clusterId: 0xddn, members: [member(0)] } });
    assert.ok(action.do === "wait" && action.isForPerson);
    assert.match(action.why, /data of cluster c1, and the other pods are cluster dd/);
  });

  test("leaves data that cannot be read to the engine", () => {
    assert.equal(decided({ data: "unreadable", cluster: answers(member(0)) }).do, "start");
  });

  test("goes on alone by the word of a person, once, and only when no other pod has anything to lose", () => {
    const alone = { recoverFrom: "db-1" };
    const empty = pods(["db-0", false], ["db-2", false]);
    const forced = withData({ pods: empty }, alone);
    assert.ok(forced.do === "start" && forced.flags.includes("--force-new-cluster"));
    const again = withData({ pods: empty, notes: { uid: "u1", recovered: forced.recovered } }, alone);
    assert.ok(again.do === "start" && again.flags.length === 0);
    const absent = withData({ pods: pods(["db-0", false]) }, alone);
    assert.ok(absent.do === "wait" && /db-2 must run first/.test(absent.why));
    const full = withData({ pods: pods(["db-0", false], ["db-2", true]) }, alone);
    assert.ok(full.do === "wait" && full.isForPerson);
    const healthy = withData({ pods: empty, cluster: answers(member(0), member(1, OWN)) }, alone);
    assert.ok(healthy.do === "start" && healthy.flags.length === 0);
  });

  test("waits for its end when the set is scaled down below it, but not when the set is to have no pods", () => {
    assert.equal(withData({ wanted: wanted(1) }).do, "wait");
    assert.equal(withData({ wanted: wanted(0) }).do, "start");
  });
});

describe("a pod with an empty volume", () => {
  test("joins a cluster that answers", () => {
    assert.equal(decided({ cluster: answers(member(0), member(2)) }).do, "add");
  });

  test("has its earlier member removed, whose volume was lost", () => {
    const action = decided({ cluster: answers(member(0), member(1, OWN), member(2)) });
    assert.ok(action.do === "remove" && action.member.id === OWN);
  });

  test("continues as the member that was added for this very volume, and removes one that was added for another", () => {
    const cluster = answers(member(0), { ...member(1, OWN), name: "" });
    const joining = decided({ cluster, notes: { uid: "u1", joining: "a1" } });
    assert.ok(joining.do === "start");
    assert.deepEqual(joining.flags.slice(0, 2), [
      "--initial-cluster=db-0=http://db-0:2380,db-1=http://db-1:2380",
      "--initial-cluster-state=existing",
    ]);
    assert.equal(decided({ cluster }).do, "remove");
  });

  test("follows a plan that names its volume, whatever else is known", () => {
    const plan = { token: "t", founders: [{ name: "db-1", uid: "u1", peerUrl: "http://db-1:2380" }] };
    const planned = pods(["db-0", true, plan]);
    const cluster = answers(member(0), member(1, OWN));
    assert.deepEqual(decided({ cluster, pods: planned }), { do: "plan", plan });
    const start = decided({ cluster, notes: { uid: "u1", plan } });
    assert.ok(start.do === "start" && start.flags.includes("--initial-cluster-state=new"));
    assert.ok(start.flags.includes("--initial-cluster-token=t"));
  });

  test("does not follow a plan that names the volume it had before", () => {
    const plan = { token: "t", founders: [{ name: "db-1", uid: "lost", peerUrl: "http://db-1:2380" }] };
    assert.equal(decided({ pods: pods(["db-0", true, plan], ["db-2", true, plan]) }).do, "wait");
  });

  test("founds a cluster only when all pods say that their volumes are empty, and only the first pod plans it", () => {
    const empty = pods(["db-0", false], ["db-2", false]);
    const second = decided({ pods: empty });
    assert.ok(second.do === "wait" && /db-0 plans/.test(second.why));
    const others = pods(["db-1", false], ["db-2", false]);
    const first = decided({ pods: others }, { name: "db-0", ordinal: 0 });
    assert.ok(first.do === "plan");
    assert.deepEqual(
      first.plan.founders.map(({ name }) => name),
      ["db-0", "db-1", "db-2"],
    );
    assert.equal(decided({ pods: pods(["db-1", false]) }, { name: "db-0", ordinal: 0 }).do, "wait", "one is not there");
    const one = pods(["db-1", false], ["db-2", true]);
    assert.equal(decided({ pods: one }, { name: "db-0", ordinal: 0 }).do, "wait", "one has data");
    const never = decided({ pods: others }, { name: "db-0", ordinal: 0, mayFound: false });
    assert.ok(never.do === "wait" && never.isForPerson);
    const restored = decided({ pods: others }, { name: "db-0", ordinal: 0, restore: ["--snapshot=/backup/db"] });
    assert.deepEqual(restored, { do: "restore", backup: ["--snapshot=/backup/db"] });
  });

  test("waits for a person when the majority has lost its volumes, and names the way back", () => {
    const action = decided({ pods: pods(["db-0", true], ["db-2", false]) });
    assert.ok(action.do === "wait" && action.isForPerson);
    assert.match(action.why, /only db-0 of db-0, db-1, db-2 has data.*--recover-from=db-0/);
    const starting = decided({ pods: pods(["db-0", true], ["db-2", true]) });
    assert.ok(starting.do === "wait" && starting.isForPerson !== true, "two of three have theirs and are starting");
  });

  test("waits for the cluster when it is none of its founders, and while it is not known how many there are to be", () => {
    const empty = pods(["db-0", false], ["db-1", false]);
    assert.equal(
      decided({ pods: empty, wanted: { ...wanted(2), isLive: false } }, { name: "db-2", ordinal: 2 }).do,
      "wait",
    );
    assert.deepEqual(decided({ wanted: "the API does not answer" }), { do: "wait", why: "the API does not answer" });
  });
});

test("members of pods that are not wanted are surplus, those of other names and of a set of none are not", () => {
  const settings = settingsOf({});
  const members = [member(0), member(1), member(4), { ...member(5), name: "other-5" }];
  assert.deepEqual(
    surplus(settings, wanted(1), members).map(({ name }) => name),
    ["db-1", "db-4"],
  );
  assert.deepEqual(surplus(settings, wanted(0), members), []);
  assert.deepEqual(surplus(settings, { ...wanted(1), isLive: false }, members), []);
  assert.deepEqual(surplus(settings, { ...wanted(1), isDeleted: true }, members), []);
});

/** Of db-1 of three pods, of which nobody answers unless said otherwise. */
function decided(facts: Partial<Facts>, settings: Partial<PodSettings> = {}): Action {
  const silent = { kind: "silent" } as const;
  const usual: Facts = {
    settings: settingsOf(settings),
    data: undefined,
    notes: { uid: "u1" },
    wanted: wanted(3),
    cluster: silent,
    pods: new Map(),
  };
  return decide({ ...usual, ...facts }, () => "1");
}

function settingsOf(changes: Partial<PodSettings>): PodSettings {
  const flags = new FlagSet(POD_FLAGS);
  flags.parse(["--name=db-1", "--host-template={pod}", "--replicas=3"]);
  return { ...podSettings(flags, { file: "kvorum", args: [] }, []), ...changes };
}

const wanted = (replicas: number) => ({ first: 0, replicas, isLive: true, isDeleted: false });

const answers = (...members: readonly MemberFacts[]) => ({ kind: "answers", clusterId: CLUSTER, members }) as const;

const member = (ordinal: number, id = BigInt(ordinal + 1)): MemberFacts => ({
  id,
  name: `db-${ordinal}`,
  peerUrls: [`http://db-${ordinal}:2380`],
  clientUrls: [`http://db-${ordinal}:2379`],
  isLearner: false,
});

type Told = readonly [name: string, hasData: boolean, plan?: NonNullable<Facts["notes"]["plan"]>];

const pods = (...told: readonly Told[]): Facts["pods"] =>
  new Map(told.map(([name, hasData, plan]) => [name, { name, uid: `of ${name}`, hasData, plan, doing: "" }]));
