/** The cluster that the other pods are members of: what it says of itself, and the changes that one pod asks of it. */
import { Client } from "../client/client.ts";
import type { CallOptions, ClientOptions, ClientTls } from "../client/options.ts";
import { readRequired } from "../deploy/common/files.ts";
import type { ClusterFacts, MemberFacts } from "./decide.ts";
import { clientUrlOf } from "./names.ts";
import type { PodSettings } from "./settings.ts";

const LOOK_MS = 2_500;
const CALL_MS = 8_000;

/** A member's own view. */
export interface MemberView {
  readonly memberId: bigint;
  readonly leader: bigint;
  readonly isLearner: boolean;
  readonly errors: readonly string[];
}

/** Asks all these pods at once. The first that speaks for a majority decides. Does not reject. */
export async function lookAtCluster(settings: PodSettings, pods: readonly string[]): Promise<ClusterFacts> {
  if (pods.length === 0) return { kind: "silent" };
  const endpoints = pods.map((pod) => clientUrlOf(settings, pod));
  return await using(settings, endpoints, async (client) => {
    const linearizable = { serializable: false, timeoutMs: LOOK_MS };
    const asked = (options: CallOptions & { readonly serializable: boolean }) =>
      Promise.any(
        endpoints.map(async (endpoint) => {
          const members = await client.cluster.members({ ...options, endpoint });
          const { clusterId } = await client.maintenance.status({ endpoint, timeoutMs: LOOK_MS });
          return { clusterId, members };
        }),
      );
    try {
      return { kind: "answers", ...(await asked(linearizable)) };
    } catch {
      return await asked({ serializable: true, timeoutMs: LOOK_MS }).then(
        (known): ClusterFacts => ({ kind: "no-majority", ...known }),
        (): ClusterFacts => ({ kind: "silent" }),
      );
    }
  });
}

/** Rejects with RpcError when the cluster refuses, or does not answer. */
export const addLearner = (settings: PodSettings, voters: readonly MemberFacts[], url: string): Promise<MemberFacts> =>
  using(
    settings,
    endpointsOf(voters),
    async (client) => (await client.cluster.add([url], { isLearner: true, timeoutMs: CALL_MS })).member,
  );

export const removeMember = (settings: PodSettings, voters: readonly MemberFacts[], id: bigint): Promise<unknown> =>
  using(settings, endpointsOf(voters), (client) => client.cluster.remove(id, { timeoutMs: CALL_MS }));

export const updateMember = (
  settings: PodSettings,
  voters: readonly MemberFacts[],
  id: bigint,
  url: string,
): Promise<unknown> =>
  using(settings, endpointsOf(voters), (client) => client.cluster.update(id, [url], { timeoutMs: CALL_MS }));

export const promoteMember = (settings: PodSettings, voters: readonly MemberFacts[], id: bigint): Promise<unknown> =>
  using(settings, endpointsOf(voters), (client) => client.cluster.promote(id, { timeoutMs: CALL_MS }));

/** Asked of the leader itself. */
export const moveLeader = (settings: PodSettings, pod: string, to: bigint): Promise<void> =>
  using(settings, [clientUrlOf(settings, pod)], (client) => client.maintenance.moveLeader(to, { timeoutMs: CALL_MS }));

/** Of the member of one pod. Rejects when it does not answer. */
export const viewOf = (settings: PodSettings, pod: string): Promise<MemberView> =>
  using(settings, [clientUrlOf(settings, pod)], (client) => client.maintenance.status({ timeoutMs: LOOK_MS }));

/** Those that can be asked for a change: learners refuse, and so does a member that has not started. */
export const votersOf = (members: readonly MemberFacts[], without?: bigint): readonly MemberFacts[] =>
  members.filter(({ id, isLearner, clientUrls }) => !isLearner && clientUrls.length > 0 && id !== without);

const endpointsOf = (members: readonly MemberFacts[]): readonly string[] =>
  members.flatMap(({ clientUrls }) => clientUrls);

async function using<T>(
  settings: PodSettings,
  endpoints: readonly string[],
  what: (client: Client) => Promise<T>,
): Promise<T> {
  const client = new Client({ ...access(settings), endpoints, failFast: true, connectTimeoutMs: LOOK_MS });
  try {
    return await what(client);
  } finally {
    client.close();
  }
}

function access(settings: PodSettings): ClientOptions {
  const { clientTls, ownPair, user, passwordFile } = settings;
  const tls: ClientTls = {
    ...(clientTls?.caFile === undefined ? {} : { caFile: clientTls.caFile }),
    ...(ownPair === undefined ? {} : ownPair),
  };
  const withTls = clientTls === undefined ? {} : { tls };
  if (user === undefined || passwordFile === undefined) return withTls;
  return { ...withTls, username: user, password: readRequired(passwordFile, "the password of --user").trimEnd() };
}
