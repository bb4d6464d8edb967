import { ETCD_VERSION } from "../../base/versions.ts";
import { AlarmType } from "../../proto/etcdserverpb.ts";
import { alarmName } from "../../server/apply/apply.ts";
import type { EtcdServer } from "../../server/server.ts";
import type { HttpHandler, HttpRequest, HttpResponse } from "./contract.ts";

/** A check returns the reason of its failure, or null. */
type Check = () => Promise<string | null>;

/** Results for the metrics page: by kind (health, livez, readyz), check and status. */
export class HealthCounts {
  success = 0;
  failures = 0;
  readonly checks = new Map<string, { kind: string; name: string; ok: number; failed: number; last: boolean }>();

  record(kind: string, name: string, ok: boolean): void {
    const id = `${kind}/${name}`;
    let counts = this.checks.get(id);
    if (counts === undefined) this.checks.set(id, (counts = { kind, name, ok: 0, failed: 0, last: ok }));
    counts.last = ok;
    if (ok) counts.ok++;
    else counts.failed++;
  }
}

/**
 * `/health`, `/livez`, `/readyz` (with a path for each check) and `/version`.
 * Source: etcd `server/etcdserver/api/etcdhttp/`.
 */
export function healthHandler(server: EtcdServer, counts: HealthCounts): HttpHandler {
  const read = (serializable: boolean): Check => {
    return () => (serializable ? Promise.resolve(null) : linearizableRead(server));
  };
  const registries: Record<string, Record<string, Check>> = {
    livez: { serializable_read: read(true) },
    readyz: {
      data_corruption: async () => (server.alarms.corrupt ? `alarm activated: ${alarmName(AlarmType.CORRUPT)}` : null),
      linearizable_read: read(false),
      non_learner: async () => (server.replication.isLearner ? "local node is a learner" : null),
      serializable_read: read(true),
    },
  };

  return (request) => {
    if (request.path === "/health") return health(server, counts, request);
    if (request.path === "/version") return version(server, request);
    const [, kind = "", name, more] = request.path.split("/");
    const checks = registries[kind];
    if (checks === undefined || more !== undefined) return undefined;
    if (name === undefined) {
      const excluded = new Set(request.query.getAll("exclude"));
      return runChecks(
        kind,
        Object.fromEntries(Object.entries(checks).filter(([n]) => !excluded.has(n))),
        counts,
        request,
      );
    }
    const check = checks[name];
    return check === undefined ? undefined : runChecks(kind, { [name]: check }, counts, request);
  };
}

/** Null when the state is up to date. */
function linearizableRead(server: EtcdServer): Promise<string | null> {
  return new Promise((resolve) => {
    server.replication.read({ serve: (error) => resolve(error === null ? null : error.message) });
  });
}

async function health(server: EtcdServer, counts: HealthCounts, request: HttpRequest): Promise<HttpResponse> {
  if (request.method !== "GET") return methodNotAllowed();
  const serializable = request.query.get("serializable") === "true";
  const reason = await unhealthyReason(server, new Set(request.query.getAll("exclude")), serializable);
  const body = JSON.stringify({ health: reason === "" ? "true" : "false", reason });
  if (reason === "") {
    counts.success++;
    return { status: 200, headers: { "content-type": "text/plain; charset=utf-8" }, body };
  }
  counts.failures++;
  server.options.logger.warn("/health error", { output: body, "status-code": 503 });
  return plainError(503, body);
}

async function unhealthyReason(server: EtcdServer, excluded: Set<string>, serializable: boolean): Promise<string> {
  for (const { alarm } of server.alarms.get(AlarmType.NONE)) {
    if (!excluded.has(alarmName(alarm))) return `ALARM ${alarmName(alarm)}`;
  }
  if (serializable) return "";
  if (server.replication.leader === 0n) return "RAFT NO LEADER";
  const failed = await linearizableRead(server);
  return failed === null ? "" : `RANGE ERROR:${failed}`;
}

async function runChecks(
  kind: string,
  checks: Record<string, Check>,
  counts: HealthCounts,
  request: HttpRequest,
): Promise<HttpResponse> {
  if (request.method !== "GET") return methodNotAllowed();
  let text = "";
  let failed = false;
  for (const [name, check] of Object.entries(checks)) {
    const reason = await check();
    counts.record(kind, name, reason === null);
    text += reason === null ? `[+]${name} ok\n` : `[-]${name} failed: ${reason}\n`;
    failed ||= reason !== null;
  }
  if (failed) return plainError(503, text);
  const body = request.query.has("verbose") ? `${text}ok\n` : "ok\n";
  return { status: 200, headers: plainText, body };
}

async function version(server: EtcdServer, request: HttpRequest): Promise<HttpResponse> {
  if (request.method !== "GET") return methodNotAllowed();
  const body = JSON.stringify({
    etcdserver: ETCD_VERSION,
    etcdcluster: server.cluster.version ?? "not_decided",
    storage: server.storageVersion ?? "unknown",
  });
  return { status: 200, headers: { "content-type": "application/json" }, body };
}

const plainText = { "content-type": "text/plain; charset=utf-8", "x-content-type-options": "nosniff" };

const plainError = (status: number, text: string): HttpResponse => ({ status, headers: plainText, body: `${text}\n` });

const methodNotAllowed = (): HttpResponse => ({
  ...plainError(405, "Method Not Allowed"),
  headers: { ...plainText, allow: "GET" },
});
