/**
 * Whether a member's data, its flags of the cluster and the cluster that runs go together. Asks the other members over
 * their peer URLs, with the member's own certificates, and decides with the code by which the member itself decides.
 */
import type { Clock } from "../base/clock.ts";
import { nullLogger } from "../base/log.ts";
import { systemText } from "../base/system-error.ts";
import type { Config } from "../config/config.ts";
import { parseUrlsByMember, urlTexts } from "../config/values/url.ts";
import { ClusterConfigError, initialMembers } from "../membership/initial.ts";
import { clusterId, formatId, type Member } from "../membership/member.ts";
import { HttpPeerClient } from "../peer/client.ts";
import { PeerDialer } from "../peer/dialer.ts";
import { PeerHttp } from "../peer/http.ts";
import { TlsClient } from "../rpc/tls/client.ts";
import { TlsError } from "../rpc/tls/files.ts";
import type { RemoteCluster } from "../server/contract/network.ts";
import { foundCluster, joinCluster } from "../server/start/initial-cluster.ts";
import type { DirectoryReport } from "./directory.ts";
import type { Finding } from "./finding.ts";
import { stepsFor } from "./membership.ts";

const ASK_MS = 2_000;

interface Peers {
  readonly client: HttpPeerClient;
  /** What the first that answered knows. */
  readonly remote: RemoteCluster | undefined;
  readonly failures: readonly { readonly url: string; readonly reason: string }[];
}

export async function examineStart(
  config: Config,
  dataDir: string,
  { log, database }: DirectoryReport,
  clock: Clock,
): Promise<Finding[]> {
  if (config.discovery.endpoints.length > 0) return [];
  const given = new Map([...parseUrlsByMember(config.initialCluster)].map(([name, urls]) => [name, urlTexts(urls)]));
  const others = [...given].flatMap(([name, urls]) => (name === config.name ? [] : urls));
  const known = database?.members.filter(({ id }) => id !== log?.memberId).flatMap(({ peerUrls }) => peerUrls) ?? [];
  let peers: Peers;
  try {
    peers = await askPeers(config, [...new Set([...known, ...others])], clock);
  } catch (error) {
    // Told among the certificates.
    if (error instanceof TlsError) return [];
    throw error;
  }
  try {
    const unreachable = peers.failures.map(unreachableFinding);
    if (log !== undefined) {
      const own = database?.members.find(({ id }) => id === log.memberId);
      return [...unreachable, ...compareWithFlags(config, own), ...compareWithCluster(log, peers.remote)];
    }
    return [...unreachable, await examineEmpty(config, dataDir, given, peers, clock)];
  } finally {
    peers.client.close();
  }
}

/** Throws TlsError. */
async function askPeers(config: Config, urls: readonly string[], clock: Clock): Promise<Peers> {
  const { peerTls, cipherSuites, tlsMinVersion: minVersion, tlsMaxVersion: maxVersion, peerServerName } = config;
  const tls = new TlsClient(
    {
      ...peerTls,
      ...{ cipherSuites, minVersion, maxVersion, flagPrefix: "peer-", serverName: peerServerName },
      insecureSkipVerify: peerTls.autoTls,
    },
    nullLogger,
  );
  const http = new PeerHttp(clock, new PeerDialer({ clock, tls, dialTimeoutMs: ASK_MS }));
  const client = new HttpPeerClient({ logger: nullLogger, http, timeoutMs: ASK_MS });
  const failures: { url: string; reason: string }[] = [];
  const answers = await Promise.all(
    urls.map(async (url) => {
      try {
        return await client.members(url, ASK_MS);
      } catch (error) {
        failures.push({ url, reason: systemText(error) });
        return undefined;
      }
    }),
  );
  return { client, remote: answers.find((answer) => answer !== undefined && answer.members.length > 0), failures };
}

const unreachableFinding = ({ url, reason }: Peers["failures"][number]): Finding => ({
  severity: "warning",
  code: "peer-unreachable",
  subject: "peers",
  text: `the member at ${url} does not answer: ${reason}`,
  next: /x509|tls/.test(reason)
    ? [
        "compare the certificates and authorities of both (--peer-cert-file, --peer-trusted-ca-file)",
        ...stepsFor(reason).slice(0, 1),
      ]
    : ["start it, or check that this machine reaches its peer port"],
});

/** A member without data. */
async function examineEmpty(
  config: Config,
  dataDir: string,
  initialCluster: ReadonlyMap<string, readonly string[]>,
  { client, remote, failures }: Peers,
  clock: Clock,
): Promise<Finding> {
  const subject = "start";
  const isNew = config.initialClusterState === "new";
  if (!isNew && remote === undefined) {
    const text = `--initial-cluster-state is existing, but no member of that cluster answers${failures.length === 0 ? ": --initial-cluster names no other member" : ""}`;
    const next = [
      "if all members of the cluster are new: --initial-cluster-state=new on each of them",
      "if the cluster exists: start its members first",
    ];
    return { severity: "problem", code: "state-should-be-new", subject, text, next };
  }
  const options = {
    ...{ name: config.name, dataDir, initialCluster, initialClusterToken: config.initialClusterToken },
    ...{ maxLearners: config.maxLearners, tickMs: config.tickMs },
    electionTicks: Math.floor(config.electionMs / config.tickMs),
    ...{ clock, logger: nullLogger },
  };
  try {
    const found = await (isNew ? foundCluster : joinCluster)(options, client);
    const stranger = isNew && remote !== undefined && !remote.members.some(({ id }) => id === found.local.id);
    if (stranger) return foundsBesideOthers(remote, found.local);
    const how = isNew ? "founds" : "joins";
    const text = `${dataDir} is empty: member ${config.name} (${formatId(found.local.id)}) ${how} cluster ${formatId(found.clusterId)} of ${found.members.length}`;
    return { severity: "ok", code: "first-start", subject, text };
  } catch (error) {
    if (!(error instanceof ClusterConfigError)) throw error;
    const lost = /has already been bootstrapped|has run in this cluster before/.test(error.message);
    return {
      severity: "problem",
      code: lost ? "member-lost-its-data" : "start-refused",
      subject,
      text: `the member would not start: ${error.message}`,
      ...(lost ? { lost: "nothing, while the other members have a quorum" } : {}),
      next: lost
        ? ["do what the text says (docs/recovery.md, A quorum survives)"]
        : [
            "correct --initial-cluster: etcdctl member add prints the right one, etcdctl member list what the cluster knows",
          ],
    };
  }
}

function foundsBesideOthers(remote: RemoteCluster, local: Member): Finding {
  const same = remote.members.find(({ peerUrls }) => peerUrls.some((url) => local.peerUrls.includes(url)));
  const cluster = formatId(remote.clusterId);
  const subject = "start";
  if (same !== undefined) {
    return {
      severity: "problem",
      code: "state-should-be-existing",
      subject,
      text: `--initial-cluster-state is new, but cluster ${cluster} runs, and knows ${local.peerUrls.join(", ")} as member ${formatId(same.id)}: this member would found a cluster of its own (${formatId(local.id)})`,
      next: [
        "if it was added with etcdctl member add: --initial-cluster-state=existing",
        "if all members are being founded now: the same --initial-cluster and --initial-cluster-token on each of them",
      ],
    };
  }
  return {
    severity: "problem",
    code: "state-should-be-existing",
    subject,
    text: `--initial-cluster-state is new, but cluster ${cluster} runs at the URLs of the others, and does not know this member`,
    next: [
      "etcdctl member add NAME --peer-urls=…, then start with --initial-cluster-state=existing and the --initial-cluster that it prints",
    ],
  };
}

/** Flags that a member with data ignores, where they say something else than its data. */
function compareWithFlags(config: Config, own: Member | undefined): Finding[] {
  if (own === undefined) return [];
  const found: Finding[] = [];
  const flags = [...urlTexts(config.advertisePeerUrls)].sort().join(",");
  const stored = [...own.peerUrls].sort().join(",");
  if (flags !== stored) {
    found.push({
      severity: "warning",
      code: "peer-urls-differ",
      subject: "start",
      text: `--initial-advertise-peer-urls is ${flags}, but the cluster knows this member at ${stored}: the flag has no effect on a member with data`,
      next: [`if the flag is right: etcdctl member update ${formatId(own.id)} --peer-urls=${flags}`],
    });
  }
  if (own.name !== "" && own.name !== config.name) {
    found.push({
      severity: "warning",
      code: "name-differs",
      subject: "start",
      text: `--name is ${config.name}, but the data is of ${own.name}: is it the directory of another member?`,
      next: [
        "if it is: stop, and give each member its own --data-dir. Two members with one directory's data damage the cluster",
      ],
    });
  }
  return found;
}

function compareWithCluster(log: NonNullable<DirectoryReport["log"]>, remote: RemoteCluster | undefined): Finding[] {
  if (remote === undefined) return [];
  const subject = "start";
  if (remote.clusterId !== log.clusterId) {
    return [
      {
        severity: "problem",
        code: "wrong-cluster",
        subject,
        text: `the directory is of cluster ${formatId(log.clusterId)}, but the members at the other URLs are of cluster ${formatId(remote.clusterId)}: they refuse each other`,
        next: [
          "if the directory is another cluster's: give the right --data-dir",
          "if the cluster was made from a snapshot: restore this member from the same snapshot with the same --initial-cluster-token, or move the directory away and let it join with etcdctl member add",
        ],
      },
    ];
  }
  if (remote.members.some(({ id }) => id === log.memberId)) return [];
  const next = ["move the directory away; etcdctl member add makes a new member of this host"];
  const text = `the cluster's members do not include this one, ${formatId(log.memberId)}: it was removed`;
  return [{ severity: "problem", code: "member-removed", subject, text, next }];
}

/** The id of the cluster that these flags found. */
export function foundedClusterId(config: Config): bigint {
  const urls = new Map([...parseUrlsByMember(config.initialCluster)].map(([name, list]) => [name, urlTexts(list)]));
  return clusterId(initialMembers(urls, config.initialClusterToken).map(({ id }) => id));
}
