/** What the answers of a cluster's members say of membership, quorum, leader and progress. Pure. */
import { formatId } from "../membership/member.ts";
import type { Member } from "../proto/etcdserverpb.ts";
import type { Answers } from "./ask-member.ts";
import type { Finding } from "./finding.ts";

/** One member of the cluster, as far as it is known. */
export interface Patient {
  readonly id: bigint;
  readonly name: string;
  readonly isLearner: boolean;
  /** In the list of members; false for one that answers, but is in no list. */
  readonly isListed: boolean;
  readonly clientUrls: readonly string[];
  /** The endpoint that answers for it, or the reason why none does. */
  readonly answer: Answers | undefined;
  readonly failures: readonly Answers[];
}

/** Entries that a healthy follower is never behind. */
const LAG_MAX = 5_000;
/** Of the leader's log: etcd promotes a learner that has this much of it. */
const READY_SHARE = 0.9;

/** Puts together what was asked and what the lists of members say. */
export function patientsOf(answers: readonly Answers[]): Patient[] {
  const listed = newestList(answers);
  const byId = new Map(listed.map((member) => [member.id, member]));
  const ids = new Set(byId.keys());
  for (const { status } of answers) if (status !== undefined) ids.add(status.header!.memberId);
  return [...ids].map((id) => {
    const member = byId.get(id);
    const answer = answers.find(({ status }) => status?.header?.memberId === id);
    return {
      id,
      name: member?.name ?? "",
      isLearner: member?.isLearner ?? answer?.status?.isLearner ?? false,
      isListed: member !== undefined,
      clientUrls: member?.clientUrls ?? [],
      answer,
      failures: answers.filter(
        ({ endpoint, status }) => status === undefined && member?.clientUrls.some((url) => isSame(url, endpoint)),
      ),
    };
  });
}

/** The list of the member that has applied most. */
function newestList(answers: readonly Answers[]): readonly Member[] {
  const applied = ({ status }: Answers) => status?.raftAppliedIndex ?? -1;
  const withList = answers.filter(({ members }) => members !== undefined);
  return [...withList].sort((a, b) => applied(b) - applied(a))[0]?.members ?? [];
}

/** The same address, with or without a scheme. */
export const isSame = (a: string, b: string): boolean => hostOf(a) === hostOf(b);
const hostOf = (url: string) => url.replace(/^https?:\/\//, "").replace(/\/$/, "");

export function examineMembership(patients: readonly Patient[]): Finding[] {
  return [
    ...patients.flatMap(examinePresence),
    ...examineQuorum(patients),
    ...examineLeader(patients),
    ...examineProgress(patients),
  ];
}

/** Members of several clusters among the endpoints; undefined when there is one. */
export function examineClusters(answers: readonly Answers[]): Finding | undefined {
  const endpoints = new Map<string, string[]>();
  for (const { endpoint, status } of answers) {
    if (status === undefined) continue;
    const id = formatId(status.header!.clusterId);
    endpoints.set(id, [...(endpoints.get(id) ?? []), endpoint]);
  }
  if (endpoints.size < 2) return undefined;
  const text = [...endpoints].map(([id, own]) => `${own.join(", ")} of cluster ${id}`).join("; ");
  return {
    severity: "problem",
    code: "several-clusters",
    subject: "cluster",
    text: `these endpoints are of ${endpoints.size} clusters: ${text}`,
    next: [
      "run the doctor on each of them alone; what follows is of the first",
      "if they should be one: a member founded a cluster of its own (--initial-cluster-state=new) where it should have joined. Stop it, move its directory away, etcdctl member add on the right cluster, and start it with --initial-cluster-state=existing",
    ],
  };
}

export const nameOf = ({ id, name }: Pick<Patient, "id" | "name">): string =>
  name === "" ? `member ${formatId(id)}` : `member ${name} (${formatId(id)})`;

function examinePresence(patient: Patient): Finding[] {
  const { answer, isListed, name, id, isLearner, clientUrls, failures } = patient;
  const subject = "members";
  if (!isListed) {
    const text = `${nameOf(patient)} at ${answer!.endpoint} answers, but is not in the cluster's list of members`;
    const next = [
      `if it was removed: stop it, and move its directory away`,
      "compare etcdctl member list on each endpoint",
    ];
    return [{ severity: "problem", code: "member-not-listed", subject, text, next }];
  }
  if (answer !== undefined) return [];
  if (name === "" && clientUrls.length === 0) {
    const counts = isLearner ? "" : ", but counts for the quorum";
    const text = `${nameOf(patient)} was added and has never started${counts}`;
    const next = [
      "start it with --initial-cluster-state=existing and the --initial-cluster that etcdctl member add printed",
      `or take it back: etcdctl member remove ${formatId(id)}`,
    ];
    return [{ severity: "warning", code: "member-never-started", subject, text, next }];
  }
  const reasons = failures.map(({ endpoint, trouble, refusal }) => `${endpoint}: ${trouble ?? refusal}`);
  const text = `${nameOf(patient)} does not answer: ${reasons.join("; ") || "it has no client URLs"}`;
  return [{ severity: "problem", code: "member-down", subject, text, next: stepsFor(reasons.join(" "), id) }];
}

/** What to do about an endpoint that gives no connection, by the cause. */
export function stepsFor(reason: string, id?: bigint): string[] {
  if (/expired or is not yet valid|expired certificate/.test(reason)) {
    return ["renew the certificate and replace the file; compare the clocks (date -u) if it should be valid"];
  }
  if (/certificate is valid for|not valid for any names|IP SANs|Common Name/.test(reason)) {
    return [
      "name the endpoint by a name in the certificate",
      "or issue a certificate with this name or address among its subject alternative names",
    ];
  }
  if (/unknown authority/.test(reason)) {
    return [
      "give --cacert the authority that signed the member's certificate",
      "or issue the certificate from the cluster's authority",
    ];
  }
  if (/remote error: tls|client certificate/.test(reason)) {
    return ["give --cert and --key a certificate that the member's --trusted-ca-file has signed"];
  }
  if (/lookup/.test(reason)) return ["correct the name, or the name servers of this machine"];
  const host = "on its host: systemctl status etcd, and journalctl -u etcd for the reason of its end";
  const examine = "kvorum doctor DATA-DIR --config-file=… there says what is wrong with its data and configuration";
  const replace =
    id === undefined
      ? "if its data is lost, replace it: docs/recovery.md"
      : `if its data is lost and the others have a quorum: etcdctl member remove ${formatId(id)}, and etcdctl member add (docs/recovery.md)`;
  if (/refused|EOF|reset/.test(reason)) return [host, examine, replace];
  return ["check that its host is up and that this machine reaches the port", host, examine, replace];
}

/** Whether enough voting members answer. */
export function hasQuorum(patients: readonly Patient[]): boolean {
  const voters = patients.filter(({ isLearner, isListed }) => isListed && !isLearner);
  return voters.filter(({ answer }) => answer?.status !== undefined).length > voters.length / 2;
}

function examineQuorum(patients: readonly Patient[]): Finding[] {
  const voters = patients.filter(({ isLearner, isListed }) => isListed && !isLearner);
  if (voters.length === 0) return [];
  const quorum = Math.floor(voters.length / 2) + 1;
  const up = voters.filter(({ answer }) => answer?.status !== undefined);
  const subject = "quorum";
  const sum = `${up.length} of ${voters.length} voting members answer, and a quorum is ${quorum} (${voters.length} / 2, rounded down, plus 1)`;
  if (!hasQuorum(patients)) {
    const missing = quorum - up.length;
    return [
      {
        severity: "problem",
        code: "quorum-lost",
        subject,
        text: `lost: ${sum}. Nothing can be written, and linearizable reads wait`,
        lost: "nothing yet: acknowledged writes are on a quorum of disks. Do not remove data directories",
        next: [
          `start ${missing === 1 ? "one" : missing} of the members that do not answer, with its own data: the cluster then continues by itself`,
          "if their data is lost for good, make a new cluster of the most advanced survivor: --force-new-cluster (docs/recovery.md, One survivor)",
          "if no member's data is usable: etcdutl snapshot restore from a backup on every member (docs/recovery.md, From a snapshot)",
        ],
      },
    ];
  }
  const spare = up.length - quorum;
  const text = `${sum}: ${spare === 0 ? "no further member may fail" : `${spare} more may fail`}`;
  if (spare === 0 && up.length < voters.length) {
    const next = ["bring the missing members back before anything else is stopped"];
    return [{ severity: "warning", code: "quorum-at-risk", subject, text, next }];
  }
  const found: Finding[] = [{ severity: "ok", code: "quorum", subject, text }];
  if (voters.length % 2 === 0) {
    found.push({
      severity: "note",
      code: "even-members",
      subject,
      text: `${voters.length} voting members survive no more failures than ${voters.length - 1} would`,
    });
  }
  return found;
}

function examineLeader(patients: readonly Patient[]): Finding[] {
  const subject = "leader";
  const up = patients.filter(({ answer }) => answer?.status !== undefined);
  if (up.length === 0) return [];
  const without = up.filter(({ answer }) => answer!.status!.leader === 0n);
  if (without.length > 0 && !hasQuorum(patients)) {
    const text = `${without.map(nameOf).join(", ")} ${without.length === 1 ? "has" : "have"} none, since there is no quorum`;
    return [{ severity: "problem", code: "no-leader", subject, text, next: ["see quorum"] }];
  }
  if (without.length > 0) {
    const text = `${without.map(nameOf).join(", ")} ${without.length === 1 ? "has" : "have"} none, although a quorum answers here`;
    const next = [
      "run the doctor again: an election takes a second or two",
      "if it stays: members do not reach each other. Check the peer port (2380) between the hosts, and the peer certificates",
      'their logs name the cause: lines with "dial", "rejected" or "x509"',
      "a disk that syncs too slowly lets elections fail: see disk",
    ];
    return [{ severity: "problem", code: "no-leader", subject, text, next }];
  }
  const leaders = new Map(up.map((patient) => [patient.answer!.status!.leader, patient]));
  if (leaders.size > 1) {
    const text = up.map(
      (patient) =>
        `${nameOf(patient)} follows ${formatId(patient.answer!.status!.leader)} in term ${patient.answer!.status!.raftTerm}`,
    );
    const next = [
      "run the doctor again: an election may be going on",
      "if it stays: members are cut off from each other; check the peer port (2380) between them",
    ];
    return [{ severity: "warning", code: "leaders-differ", subject, text: text.join("; "), next }];
  }
  const [leader = 0n] = leaders.keys();
  const found = patients.find(({ id }) => id === leader);
  const blocked = up.filter(({ answer, isLearner }) => !isLearner && answer!.readFailure !== undefined);
  const term = up[0]!.answer!.status!.raftTerm;
  if (blocked.length === 0) {
    return [
      { severity: "ok", code: "leader", subject, text: `${nameOf(found ?? { id: leader, name: "" })}, term ${term}` },
    ];
  }
  return blocked.map((patient) => ({
    severity: "problem",
    code: "read-failed",
    subject,
    text: `${nameOf(patient)} knows a leader, but a linearizable read on it failed: ${patient.answer!.readFailure}`,
    next: readSteps(patient.answer!.readFailure!),
  }));
}

const readSteps = (failure: string): string[] =>
  /auth|user name|permission|token/.test(failure)
    ? ["give --user and --password of a user that may read, root for all that the doctor looks at"]
    : ["run the doctor again; if it stays, look at quorum, disk and the network between the members"];

function examineProgress(patients: readonly Patient[]): Finding[] {
  const up = patients.filter(({ answer }) => answer?.status !== undefined);
  const newest = Math.max(0, ...up.map(({ answer }) => answer!.status!.raftIndex));
  const subject = "progress";
  return up.flatMap((patient): Finding[] => {
    const { raftAppliedIndex, raftIndex } = patient.answer!.status!;
    const behind = newest - raftAppliedIndex;
    const isReady = raftIndex >= newest * READY_SHARE;
    if (patient.isLearner && isReady) {
      const text = `${nameOf(patient)} is a learner that has caught up, and does not vote yet`;
      const next = [`etcdctl member promote ${formatId(patient.id)}, unless it is kept as a learner on purpose`];
      return [{ severity: "note", code: "learner-not-promoted", subject, text, next }];
    }
    if (behind <= LAG_MAX) return [];
    const text = `${nameOf(patient)} is ${behind} entries behind (${raftAppliedIndex} of ${newest})`;
    const next = [
      "run the doctor again: if the number falls, it catches up by itself",
      "if it grows: its disk or its network is slower than the writes; see disk",
    ];
    return [{ severity: "warning", code: "member-behind", subject, text, next }];
  });
}
