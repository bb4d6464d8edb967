/** The one question to the API of Kubernetes: what the StatefulSet is to be. */
import { readFileSync } from "node:fs";
import { request } from "node:https";
import { join } from "node:path";
import type { Clock } from "../base/clock.ts";
import { codeOf } from "../base/errors.ts";
import { DeployError } from "../deploy/common/context.ts";
import { numberIn, objectIn, parsed } from "./json.ts";

const ANSWER_MS = 3_000;
const BODY_BYTES_MAX = 4 * 1024 * 1024;

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

function get(
  host: string,
  port: string,
  path: string,
  dir: string,
  clock: Clock,
): Promise<{ status: number; body: string }> {
  return new Promise((resolve, reject) => {
    const headers = { authorization: `Bearer ${read(join(dir, "token")) ?? ""}`, accept: "application/json" };
    const ca = read(join(dir, "ca.crt"));
    const options = { host, port, path, headers, agent: false, ...(ca === undefined ? {} : { ca }) };
    const call = request(options, (response) => {
      let body = "";
      response.setEncoding("utf8");
      response.on("data", (piece: string) => {
        body += piece;
        if (body.length > BODY_BYTES_MAX) call.destroy(new Error("the answer is too long"));
      });
      response.on("end", () => settle(() => resolve({ status: response.statusCode ?? 0, body })));
      response.on("error", (error) => settle(() => reject(error)));
    });
    const timer = clock.after(ANSWER_MS, () => call.destroy(new Error(`no answer within ${ANSWER_MS / 1000} s`)));
    const settle = (then: () => void) => {
      timer.cancel();
      then();
    };
    call.on("error", (error) => settle(() => reject(error)));
    call.end();
  });
}

function read(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8").trim();
  } catch (error) {
    if (codeOf(error) === "ENOENT") return undefined;
    throw error;
  }
}
