import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { test } from "node:test";
import type { Answers } from "../../src/doctor/ask-member.ts";
import { examineDates } from "../../src/doctor/certificate-dates.ts";
import type { Finding } from "../../src/doctor/finding.ts";
import { judgeHashes } from "../../src/doctor/hashes.ts";
import { examineMembers } from "../../src/doctor/member-health.ts";
import { examineClusters, examineMembership, patientsOf, stepsFor } from "../../src/doctor/membership.ts";
import { boundOf, histogramOf } from "../../src/doctor/metrics-page.ts";
import { HashKVResponse, Member, ResponseHeader, StatusResponse } from "../../src/proto/etcdserverpb.ts";
import { startInProcess } from "../harness/in-process.ts";
import { freePorts } from "../harness/server.ts";
import { codesOf, doctor, findings, one } from "./helpers.ts";

const LEADER = 1n;
const MIB = 1024 * 1024;
const urlOf = (id: number) => `http://127.0.0.1:${id}`;

const members = (count: number, changes: Partial<Member> = {}): Member[] =>
  Array.from({ length: count }, (_, i) =>
    Member.create({
      id: BigInt(i + 1),
      name: `m${i + 1}`,
      clientUrls: [urlOf(i + 1)],
      ...(i + 1 === count ? changes : {}),
    }),
  );

function up(id: number, list: readonly Member[], changes: Partial<StatusResponse> = {}, more: Partial<Answers> = {}) {
  const header = ResponseHeader.create({ clusterId: 7n, memberId: BigInt(id), revision: 10, raftTerm: 3 });
  const status = { version: "3.7.1", dbSize: MIB, dbSizeInUse: MIB, leader: LEADER, raftIndex: 100, raftTerm: 3 };
  const answer: Answers = {
    endpoint: urlOf(id),
    members: list,
    status: StatusResponse.create({ header, raftAppliedIndex: 100, dbSizeQuota: 100 * MIB, ...status, ...changes }),
    ...more,
  };
  return answer;
}

const down = (id: number, trouble = "connect: connection refused"): Answers => ({ endpoint: urlOf(id), trouble });

const judge = (...answers: Answers[]): Finding[] => {
  const patients = patientsOf(answers);
  return [...examineMembership(patients), ...examineMembers(patients, Date.now())];
};
const find = (found: readonly Finding[], code: string) => {
  const match = found.find((finding) => finding.code === code);
  assert.ok(match, `${code} among ${found.map((finding) => finding.code).join(", ")}`);
  return match;
};
const badCodes = (found: readonly Finding[]) =>
  found.filter(({ severity }) => severity !== "ok").map(({ code }) => code);

test("three members that answer are healthy, and one more may fail", () => {
  const list = members(3);
  const found = judge(up(1, list), up(2, list), up(3, list));
  assert.deepEqual(badCodes(found), []);
  assert.match(
    find(found, "quorum").text,
    /^3 of 3 voting members answer, and a quorum is 2 \(3 \/ 2, rounded down, plus 1\): 1 more may fail$/,
  );
  assert.equal(find(found, "leader").text, "member m1 (1), term 3");
});

test("a member that is down is named with its cause, and the quorum is at risk", () => {
  const list = members(3);
  const found = judge(up(1, list), up(2, list), down(3));
  assert.deepEqual(badCodes(found), ["member-down", "quorum-at-risk"]);
  assert.match(
    find(found, "member-down").text,
    /^member m3 \(3\) does not answer: http:\/\/127\.0\.0\.1:3: connect: connection refused$/,
  );
  assert.match(find(found, "quorum-at-risk").text, /2 of 3 .* no further member may fail/);
});

test("a lost quorum is told with its arithmetic, and that nothing acknowledged is lost yet", () => {
  const list = members(5);
  const found = judge(up(1, list, { leader: 0n }), up(2, list, { leader: 0n }), down(3), down(4), down(5));
  const quorum = find(found, "quorum-lost");
  assert.match(quorum.text, /2 of 5 voting members answer, and a quorum is 3 \(5 \/ 2, rounded down, plus 1\)/);
  assert.match(quorum.lost!, /^nothing yet/);
  assert.match(quorum.next![0]!, /^start one of the members that do not answer/);
  assert.match(find(found, "no-leader").text, /have none, since there is no quorum/);
});

test("a quorum without a leader points to the network between the members", () => {
  const list = members(3);
  const found = judge(up(1, list, { leader: 0n }), up(2, list, { leader: 0n }), up(3, list, { leader: 0n }));
  assert.match(find(found, "no-leader").next!.join(), /peer port \(2380\)/);
});

test("members that follow different leaders, and a read that fails, are reported", () => {
  const list = members(3);
  assert.deepEqual(badCodes(judge(up(1, list), up(2, list), up(3, list, { leader: 3n }))), ["leaders-differ"]);
  const failing = judge(up(1, list), up(2, list), up(3, list, {}, { readFailure: "context deadline exceeded" }));
  assert.match(find(failing, "read-failed").text, /^member m3 \(3\) knows a leader, but .* context deadline exceeded$/);
});

test("even numbers of members, members never started and members not listed are reported", () => {
  const list = members(4);
  assert.deepEqual(badCodes(judge(...[1, 2, 3, 4].map((id) => up(id, list)))), ["even-members"]);
  const added = members(4, { name: "", clientUrls: [] });
  const waiting = judge(...[1, 2, 3].map((id) => up(id, added)));
  assert.match(
    find(waiting, "member-never-started").text,
    /^member 4 was added and has never started, but counts for the quorum$/,
  );
  const gone = judge(...[1, 2, 3].map((id) => up(id, members(3))), up(9, []));
  assert.match(find(gone, "member-not-listed").text, /^member 9 at .* is not in the cluster's list/);
});

test("a member far behind is a warning, and a learner that has caught up should be promoted", () => {
  const list = members(3);
  const all = (changes: Partial<StatusResponse>, third = list) =>
    judge(
      up(1, third, { raftIndex: 20_000, raftAppliedIndex: 20_000 }),
      up(2, third, { raftIndex: 20_000, raftAppliedIndex: 20_000 }),
      up(3, third, changes),
    );
  const behind = all({ raftIndex: 9_000, raftAppliedIndex: 9_000 });
  assert.match(find(behind, "member-behind").text, /11000 entries behind \(9000 of 20000\)/);
  const learner = members(3, { isLearner: true });
  const ready = all({ raftIndex: 19_000, raftAppliedIndex: 19_000, isLearner: true }, learner);
  assert.match(find(ready, "learner-not-promoted").next![0]!, /^etcdctl member promote 3/);
});

test("endpoints of several clusters are told apart", () => {
  const other = up(2, members(2));
  const foreign = { ...other, status: { ...other.status!, header: { ...other.status!.header!, clusterId: 8n } } };
  const found = examineClusters([up(1, members(1)), foreign]);
  assert.match(
    found!.text,
    /of 2 clusters: http:\/\/127\.0\.0\.1:1 of cluster 7; http:\/\/127\.0\.0\.1:2 of cluster 8/,
  );
  assert.equal(examineClusters([up(1, members(2)), up(2, members(2)), down(3)]), undefined);
});

test("alarms, a quota that is near, and free pages are told with the command that helps", () => {
  const list = members(1);
  const alarmed = judge(up(1, list, { errors: ["memberID:1 alarm:NOSPACE ", "memberID:1 alarm:CORRUPT "] }));
  assert.match(
    find(alarmed, "alarm-nospace").next!.join(),
    /etcdctl compaction.*etcdctl defrag.*etcdctl alarm disarm/s,
  );
  assert.match(find(alarmed, "alarm-corrupt").text, /CORRUPT is raised by member m1 \(1\)/);
  const near = judge(up(1, list, { dbSize: 85 * MIB, dbSizeInUse: 80 * MIB }));
  assert.match(find(near, "quota-near").text, /its quota is 100 MiB|105 MB/);
  const loose = judge(up(1, list, { dbSize: 400 * MIB, dbSizeInUse: 100 * MIB, dbSizeQuota: 8192 * MIB }));
  assert.match(find(loose, "fragmented").next![0]!, /^etcdctl defrag --endpoints=http:\/\/127\.0\.0\.1:1 gives/);
});

test("versions one minor apart are an upgrade to be finished, two apart are not supported", () => {
  const list = members(2);
  const apart = (version: string) => find(judge(up(1, list), up(2, list, { version })), "versions-differ").severity;
  assert.equal(apart("3.6.5"), "note");
  assert.equal(apart("3.5.21"), "warning");
  assert.ok(!badCodes(judge(up(1, list), up(2, list, { version: "3.7.0" }))).includes("versions-differ"));
});

const page = (counts: readonly number[]) =>
  ["0.001", "0.016", "0.064", "+Inf"]
    .map((le, i) => `etcd_disk_wal_fsync_duration_seconds_bucket{le="${le}"} ${counts[i]}`)
    .join("\n");

test("a slow disk is recognised by the 99th percentile of its syncs, when there are enough", () => {
  const list = members(1);
  const slow = judge(up(1, list, {}, { metrics: page([500, 900, 1000, 1000]) }));
  assert.match(find(slow, "disk-slow").text, /1 % of its 1000 syncs of the log took up to 64 ms \(10 ms are good\)/);
  for (const counts of [
    [500, 995, 1000, 1000],
    [1, 1, 2, 2],
  ]) {
    assert.deepEqual(badCodes(judge(up(1, list, {}, { metrics: page(counts) }))), []);
  }
  const histogram = histogramOf(page([1, 2, 3, 4]), "etcd_disk_wal_fsync_duration_seconds")!;
  assert.deepEqual([boundOf(histogram, 0.5), boundOf(histogram, 1)], [0.016, Number.POSITIVE_INFINITY]);
  assert.equal(histogramOf("", "etcd_disk_wal_fsync_duration_seconds"), undefined);
});

test("clocks that are provably more than a second apart are reported, whatever the header rounds", () => {
  const list = members(2);
  const at = (offsetMs: number) => {
    const nowMs = 1_700_000_000_500;
    const dateMs = Math.floor((nowMs + offsetMs) / 1000) * 1000;
    return {
      http: { status: 200, body: "", dateMs, sentMs: nowMs - 20, receivedMs: nowMs + 20, certificate: undefined },
    };
  };
  const skew = (ms: number) => judge(up(1, list, {}, at(0)), up(2, list, {}, at(ms)));
  assert.match(
    find(skew(5_000), "clock-skew").text,
    /the clock of member m2 \(2\) is at least 4\.0 s ahead of member m1 \(1\)'s/,
  );
  assert.match(find(skew(-5_000), "clock-skew").text, /the clock of member m1 \(1\) is at least/);
  for (const ms of [-999, 0, 999]) assert.deepEqual(badCodes(skew(ms)), ["even-members"]);
  assert.match(
    find(judge(up(1, list, {}, at(60_000)), up(2, list, {}, at(60_000))), "own-clock").text,
    /behind all members'/,
  );
});

test("hashes that differ name the minority, and without a majority nothing is called right", () => {
  const patients = patientsOf([1, 2, 3].map((id) => up(id, members(3))));
  const hashes = (...values: number[]) => values.map((hash) => HashKVResponse.create({ hash, compactRevision: 1 }));
  assert.equal(judgeHashes(patients, hashes(5, 5, 5), 10).severity, "ok");
  const found = judgeHashes(patients, hashes(5, 6, 5), 10);
  assert.equal(found.code, "hashes-differ");
  assert.match(found.text, /up to revision 10 differ: 5 on member m1 \(1\), member m3 \(3\); 6 on member m2 \(2\)/);
  assert.match(found.next![0]!, /^replace member m2 \(2\)/);
  assert.match(judgeHashes(patients, hashes(5, 6, 7), 10).lost!, /^unknown/);
  assert.equal(judgeHashes(patients, [...hashes(5, 5), "permission denied"], 10).code, "hashes-unknown");
});

test("a certificate's expiry is judged by its own validity, too", () => {
  const day = 86_400_000;
  const now = 1_000 * day;
  const codes = (from: number, to: number) =>
    examineDates("it", "x", { validFromMs: now + from * day, validToMs: now + to * day }, now).map(({ code }) => code);
  assert.deepEqual(codes(-335, 20), ["certificate-expires-soon"]);
  assert.deepEqual(codes(-335, 31), []);
  assert.deepEqual(codes(-1, 2), [], "of three days, two are left");
  assert.deepEqual(codes(-10, -1), ["certificate-expired"]);
  assert.deepEqual(codes(1, 10), ["certificate-not-yet-valid"]);
});

test("each cause of a failed connection has its own advice", () => {
  const first = (reason: string) => stepsFor(reason)[0];
  assert.match(first("x509: certificate has expired or is not yet valid: current time …")!, /renew/);
  assert.match(first("x509: certificate is valid for a, not b")!, /by a name in the certificate/);
  assert.match(first("x509: certificate signed by unknown authority")!, /--cacert/);
  assert.match(first("remote error: tls: certificate required")!, /--cert and --key/);
  assert.match(first("dial tcp: lookup nowhere: no such host")!, /name servers/);
  assert.match(first("dial tcp 127.0.0.1:1: connect: connection refused")!, /systemctl status etcd/);
  assert.match(first("i/o timeout")!, /its host is up/);
});

test("a running member is asked over its endpoint, and one that does not answer is a problem", async () => {
  const server = await startInProcess({ server: { advertiseClientUrls: [] } });
  try {
    const healthy = await findings("--endpoints", server.url);
    assert.deepEqual(codesOf(healthy.all), []);
    assert.ok(healthy.code <= 1);
    assert.match(one(healthy.all, "leader").text, /^member default /);
    const [port] = await freePorts(1);
    const failing = await findings("--endpoints", `${server.url},127.0.0.1:${port}`);
    assert.equal(failing.code, 2);
    assert.match(one(failing.all, "endpoint-fails").text, /connection refused/);
    const secure = await findings("--endpoints", server.url.replace("http:", "https:"));
    assert.match(one(secure.all, "endpoint-fails").text, /speaks no TLS/);
  } finally {
    await server.close();
  }
});

test("an endpoint that is no etcd is reported as one that fails", async () => {
  const server = createServer((_, response) => response.end("hello"));
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  try {
    const { all } = await findings("--endpoints", `127.0.0.1:${(server.address() as AddressInfo).port}`);
    assert.match(one(all, "endpoint-fails").text, /HTTP\/1/);
  } finally {
    server.closeAllConnections();
    server.close();
  }
});

test("a directory and a cluster are not examined in one run", async () => {
  const both = await doctor("/nowhere", "--endpoints", "127.0.0.1:1");
  assert.deepEqual([both.code, /not both in one run/.test(both.err)], [3, true]);
  assert.match((await doctor()).err, /needs a data directory, --config-file, or --endpoints/);
});

test("docs/recovery.md has every code of a finding", async () => {
  const { readdirSync } = await import("node:fs");
  const source = new URL("../../src/doctor/", import.meta.url);
  const codes = new Set<string>();
  for (const file of readdirSync(source)) {
    const text = readFileSync(new URL(file, source), "utf8");
    for (const [, list] of text.matchAll(/\bcode(?::| =) ([^\n]+)/g)) {
      for (const [, code] of list!
        .split("subject:")[0]!
        .replace(/=== "\w+"/g, "")
        .matchAll(/"([a-z]+(?:-[a-z]+)*)"/g))
        codes.add(code!);
    }
    for (const [, code] of text.matchAll(/finding\(\s*"([a-z-]+)"/g)) codes.add(code!);
  }
  const document = readFileSync(new URL("../../docs/recovery.md", import.meta.url), "utf8");
  const table = [...document.matchAll(/^\| `([a-z-]+)` \|/gm)].map(([, code]) => code!);
  assert.deepEqual([...table].sort(), [...codes].sort());
});
