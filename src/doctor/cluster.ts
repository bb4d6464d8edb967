/** What is wrong with a running cluster: asks every member that the endpoints name or list, and judges the answers. */
import { type Answers, type AskOptions, askHash, askMember } from "./ask-member.ts";
import { certificatesIn, examineDates, validityOf } from "./certificate-dates.ts";
import type { Finding } from "./finding.ts";
import { judgeHashes } from "./hashes.ts";
import { examineMembers } from "./member-health.ts";
import {
  examineClusters,
  examineMembership,
  hasQuorum,
  isSame,
  type Patient,
  patientsOf,
  stepsFor,
} from "./membership.ts";

/** An election takes one to two election time-outs. */
const ELECTION_MS = 2_000;
/** A running compaction changes hashes for a moment. */
const AGAIN_MS = 1_000;

export async function examineCluster(options: AskOptions): Promise<Finding[]> {
  const { clock } = options;
  let answers = await askAll(options);
  if (!agreeOnLeader(answers) && hasQuorum(patientsOf(answers))) {
    // An election may be going on.
    await new Promise<void>((resolve) => clock.after(ELECTION_MS, resolve));
    answers = await askAll(options);
  }
  const several = examineClusters(answers);
  const [first] = answers.flatMap(({ status }) => status?.header?.clusterId ?? []);
  const own = several === undefined ? answers : answers.filter(({ status }) => isOf(status, first));
  const patients = patientsOf(own);
  return [
    ...examineUnknown(answers, patients),
    ...(several === undefined ? [] : [several]),
    ...examineMembership(patients),
    ...examineMembers(patients, clock.wallMs()),
    ...(await examineHashes(patients, options)),
    ...examineOwnCertificates(options),
  ];
}

const isOf = (status: Answers["status"], clusterId: bigint | undefined): boolean =>
  status === undefined || status.header!.clusterId === clusterId;

function agreeOnLeader(answers: readonly Answers[]): boolean {
  const leaders = new Set(answers.flatMap(({ status }) => (status === undefined ? [] : [status.leader])));
  return leaders.size <= 1 && !leaders.has(0n);
}

/** The endpoints, then the client URLs of members for whom none of them answered. */
async function askAll(options: AskOptions): Promise<Answers[]> {
  const asked = await Promise.all(options.cluster.endpoints.map((endpoint) => askMember(endpoint, options)));
  const others = patientsOf(asked)
    .filter(({ answer }) => answer === undefined)
    .flatMap(({ clientUrls }) => clientUrls)
    .filter((url) => !asked.some(({ endpoint }) => isSame(endpoint, url)));
  return [...asked, ...(await Promise.all(others.map((endpoint) => askMember(endpoint, options))))];
}

/** Endpoints that give no status and belong to no known member. */
function examineUnknown(answers: readonly Answers[], patients: readonly Patient[]): Finding[] {
  const told = new Set(patients.flatMap(({ failures }) => failures));
  return answers
    .filter((answer) => answer.status === undefined && !told.has(answer))
    .map((answer) => {
      const reason = answer.trouble ?? answer.refusal ?? "";
      const next = stepsFor(reason);
      return {
        severity: "problem",
        code: "endpoint-fails",
        subject: "endpoints",
        text: reason.includes(answer.endpoint) ? reason : `${answer.endpoint}: ${reason}`,
        next,
      };
    });
}

/** Equal histories at one revision have equal hashes, whatever else the members do. */
async function examineHashes(patients: readonly Patient[], options: AskOptions): Promise<Finding[]> {
  const voters = patients.filter(({ answer, isLearner }) => answer?.status !== undefined && !isLearner);
  if (voters.length < 2) return [];
  const revision = Math.min(...voters.map(({ answer }) => answer!.status!.header!.revision));
  let found = await compare(voters, revision, options);
  if (found.severity === "problem") {
    await new Promise<void>((resolve) => options.clock.after(AGAIN_MS, resolve));
    found = await compare(voters, revision, options);
  }
  return [found];
}

async function compare(voters: readonly Patient[], revision: number, options: AskOptions): Promise<Finding> {
  const answers = await Promise.all(voters.map(({ answer }) => askHash(answer!.endpoint, revision, options)));
  return judgeHashes(voters, answers, revision);
}

/** Those that were given with --cert and --cacert. */
function examineOwnCertificates({ cluster, clock }: AskOptions): Finding[] {
  const own = [
    { what: "the client certificate given with --cert", pem: cluster.tls?.cert },
    { what: "an authority given with --cacert", pem: cluster.tls?.ca },
  ];
  return own.flatMap(({ what, pem }) =>
    (pem === undefined ? [] : certificatesIn(pem)).flatMap((certificate) =>
      examineDates(
        `${what} (${certificate.subject.replaceAll("\n", ", ")})`,
        "members refuse what depends on it",
        validityOf(certificate),
        clock.wallMs(),
      ),
    ),
  );
}
