import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import type { HttpRequest } from "../../../src/api/http/contract.ts";
import { HealthCounts, healthHandler } from "../../../src/api/http/health.ts";
import { nullLogger } from "../../../src/base/log.ts";
import {
  AlarmRequest_AlarmAction as AlarmAction,
  AlarmType,
  MaintenanceService,
} from "../../../src/proto/etcdserverpb.ts";
import { type EtcdError, errors } from "../../../src/server/contract/errors.ts";
import type { EtcdServer } from "../../../src/server/server.ts";
import { type InProcess, startInProcess } from "../../harness/in-process.ts";

describe("the pages for monitoring", () => {
  let server: InProcess;
  before(async () => {
    server = await startInProcess();
  });
  after(async () => {
    await server.close();
    assert.deepEqual(server.failures, []);
  });

  const get = async (path: string, init: RequestInit = {}): Promise<[number, string]> => {
    const response = await fetch(server.url + path, init);
    return [response.status, await response.text()];
  };
  const withAlarm = async (alarm: AlarmType, body: () => Promise<void>): Promise<void> => {
    const set = (action: AlarmAction) =>
      server.client.unary(MaintenanceService.Alarm, { action, alarm, memberId: server.etcd.server.memberId });
    await set(AlarmAction.ACTIVATE);
    try {
      await body();
    } finally {
      await set(AlarmAction.DEACTIVATE);
    }
  };

  test("/health is true while a linearizable read works, and names the alarm that makes it false", async () => {
    assert.deepEqual(await get("/health"), [200, '{"health":"true","reason":""}']);
    assert.deepEqual(await get("/health?serializable=true"), [200, '{"health":"true","reason":""}']);
    await withAlarm(AlarmType.NOSPACE, async () => {
      assert.deepEqual(await get("/health"), [503, '{"health":"false","reason":"ALARM NOSPACE"}\n']);
      assert.equal((await get("/health?exclude=NOSPACE"))[0], 200);
      assert.equal((await get("/health?exclude=CORRUPT"))[0], 503);
    });
  });

  test("/livez and /readyz list all checks on request, and each has its own page", async () => {
    assert.deepEqual(await get("/livez"), [200, "ok\n"]);
    assert.deepEqual(await get("/readyz"), [200, "ok\n"]);
    assert.deepEqual(await get("/livez?verbose"), [200, "[+]serializable_read ok\nok\n"]);
    const [, verbose] = await get("/readyz?verbose");
    assert.equal(
      verbose,
      "[+]data_corruption ok\n[+]linearizable_read ok\n[+]non_learner ok\n[+]serializable_read ok\nok\n",
    );
    assert.equal((await get("/readyz/linearizable_read"))[0], 200);
    assert.equal((await get("/readyz/nope"))[0], 404);
    await withAlarm(AlarmType.CORRUPT, async () => {
      const [status, text] = await get("/readyz");
      assert.equal(status, 503);
      assert.match(text, /\[-\]data_corruption failed: alarm activated: CORRUPT/);
      assert.equal((await get("/readyz?exclude=data_corruption"))[0], 200);
      assert.equal((await get("/livez"))[0], 200, "a corrupt member is alive");
    });
  });

  test("/version reports the versions of server, cluster and storage", async () => {
    const [status, text] = await get("/version");
    assert.equal(status, 200);
    assert.equal(text, '{"etcdserver":"3.7.1","etcdcluster":"3.7.0","storage":"3.7.0"}');
  });

  test("other methods and other paths are refused", async () => {
    for (const path of ["/health", "/version", "/readyz", "/livez"]) {
      const response = await fetch(server.url + path, { method: "POST" });
      assert.equal(response.status, 405, path);
      assert.equal(response.headers.get("allow"), "GET");
    }
    assert.deepEqual(await get("/nope"), [404, "404 page not found\n"]);
  });
});

describe("a member in trouble", () => {
  /** A server with only the parts that the pages use. */
  const troubled = (changes: { leader?: bigint; isLearner?: boolean; error?: EtcdError }): EtcdServer =>
    ({
      alarms: { get: () => [], corrupt: false },
      replication: {
        leader: changes.leader ?? 1n,
        isLearner: changes.isLearner ?? false,
        read: ({ serve }: { serve: (error: EtcdError | null) => void }) => serve(changes.error ?? null),
      },
      cluster: { version: undefined },
      storageVersion: undefined,
      options: { logger: nullLogger },
    }) as unknown as EtcdServer;
  const ask = async (server: EtcdServer, target: string, counts = new HealthCounts()) => {
    const { pathname, searchParams } = new URL(target, "http://member");
    const request = { method: "GET", path: pathname, query: searchParams } as unknown as HttpRequest;
    const { status, body } = (await healthHandler(server, counts)(request))!;
    return [status, body];
  };
  const unhealthy = (reason: string) => [503, `{"health":"false","reason":"${reason}"}\n`];

  test("says in the words of etcd that it has no leader, but is healthy where none is needed", async () => {
    const counts = new HealthCounts();
    const server = troubled({ leader: 0n, error: errors.noLeader });
    assert.deepEqual(await ask(server, "/health", counts), unhealthy("RAFT NO LEADER"));
    assert.deepEqual([counts.success, counts.failures], [0, 1]);
    assert.equal((await ask(server, "/health?serializable=true", counts))[0], 200);
    assert.deepEqual([counts.success, counts.failures], [1, 1]);
    assert.deepEqual(await ask(server, "/readyz"), [
      503,
      "[+]data_corruption ok\n[-]linearizable_read failed: etcdserver: no leader\n" +
        "[+]non_learner ok\n[+]serializable_read ok\n\n",
    ]);
    assert.deepEqual(await ask(server, "/livez"), [200, "ok\n"]);
  });

  test("says which error a linearizable read returned", async () => {
    const server = troubled({ error: errors.timeout });
    assert.deepEqual(await ask(server, "/health"), unhealthy("RANGE ERROR:etcdserver: request timed out"));
  });

  test("is not ready as a learner", async () => {
    const [status, body] = await ask(troubled({ isLearner: true }), "/readyz/non_learner");
    assert.deepEqual([status, body], [503, "[-]non_learner failed: local node is a learner\n\n"]);
  });

  test("does not know the versions of the cluster and the storage before they are set", async () => {
    const [, body] = await ask(troubled({}), "/version");
    assert.match(String(body), /"etcdcluster":"not_decided","storage":"unknown"/);
  });
});
