/** The one question to the API of Kubernetes: what the StatefulSet is to be. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { Clock } from "../base/clock.ts";
import { codeOf } from "../base/errors.ts";
import { DeployError } from "../deploy/common/context.ts";
import { type Answer, getAnswer } from "./http.ts";
import { numberIn, objectIn, parsed } from "./json.ts";

export interface StatefulSetFacts {
  readonly first: number;
  readonly replicas: number;
  readonly isDeleted: boolean;
}

export interface KubernetesApi {
  /** Undefined when there is none of the name. Rejects when the API does not answer, or refuses. */
  statefulSet(namespace: string, name: string): Promise<StatefulSetFacts | undefined>;
}

/** As each pod with a service account finds it; undefined without one. */
export function apiFromEnvironment(
  dir: string,
  env: Readonly<Record<string, string | undefined>>,
  clock: Clock,
): KubernetesApi | undefined {
  const [host, port] = [env["KUBERNETES_SERVICE_HOST"], env["KUBERNETES_SERVICE_PORT"] ?? "443"];
  if (host === undefined || read(join(dir, "token")) === undefined) return undefined;
  return {
    async statefulSet(namespace, name) {
      const path = `/apis/apps/v1/namespaces/${encodeURIComponent(namespace)}/statefulsets/${encodeURIComponent(name)}`;
      // Tokens are renewed in their file.
      const { status, body } = await get(host, port, path, dir, clock);
      if (status === 404) return undefined;
      if (status === 401 || status === 403)
        throw new DeployError(
          `status ${status}: the service account needs the verb get on statefulsets/${name} (a Role and its RoleBinding)`,
        );
      if (status !== 200) throw new DeployError(`status ${status}`);
      return factsOf(parsed(body));
    },
  };
}

function factsOf(statefulSet: unknown): StatefulSetFacts {
  const spec = objectIn(statefulSet, "spec");
  return {
    first: numberIn(objectIn(spec, "ordinals"), "start") ?? 0,
    // One, where the API leaves it out.
    replicas: numberIn(spec, "replicas") ?? 1,
    isDeleted: objectIn(statefulSet, "metadata")?.["deletionTimestamp"] !== undefined,
  };
}

function get(host: string, port: string, path: string, dir: string, clock: Clock): Promise<Answer> {
  const headers = { authorization: `Bearer ${read(join(dir, "token")) ?? ""}`, accept: "application/json" };
  const ca = read(join(dir, "ca.crt"));
  const name = host.includes(":") ? `[${host}]` : host;
  return getAnswer(`https://${name}:${port}${path}`, { headers, ...(ca === undefined ? {} : { ca }) }, clock);
}

function read(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8").trim();
  } catch (error) {
    if (codeOf(error) === "ENOENT") return undefined;
    throw error;
  }
}
