import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import {
  AlarmRequest_AlarmAction as AlarmAction,
  AlarmType,
  MaintenanceService,
} from "../../../src/proto/etcdserverpb.ts";
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
