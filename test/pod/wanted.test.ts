import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type Server } from "node:https";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { systemClock } from "../../src/base/clock.ts";
import { FlagSet } from "../../src/base/flags.ts";
import { fromEnvironment, POD_FLAGS, podSettings } from "../../src/pod/settings.ts";
import { isScaledDown, wantedSource } from "../../src/pod/wanted.ts";
import { Authority } from "../harness/certificates.ts";

describe("the StatefulSet in the API of Kubernetes", () => {
  let directory: string;
  let server: Server;
  let asked: string[];
  let answer: { status: number; body: string };

  before(async () => {
    directory = mkdtempSync(join(tmpdir(), "kvorum-wanted-"));
    const authority = await Authority.create("kubernetes");
    const { cert, key } = await authority.issue();
    writeFileSync(join(directory, "ca.crt"), authority.pem);
    writeFileSync(join(directory, "token"), "first\n");
    writeFileSync(join(directory, "namespace"), "apps\n");
    server = createServer({ cert, key }, (request, response) => {
      asked.push(`${request.headers.authorization} ${request.url}`);
      response.writeHead(answer.status).end(answer.body);
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  });

  after(() => {
    server.close();
    server.closeAllConnections();
    rmSync(directory, { recursive: true, force: true });
  });

  const source = (...flags: readonly string[]) => {
    asked = [];
    const { port } = server.address() as AddressInfo;
    const env = { KUBERNETES_SERVICE_HOST: "127.0.0.1", KUBERNETES_SERVICE_PORT: String(port) };
    return wantedSource(settings(`--service-account-dir=${directory}`, ...flags), env, systemClock);
  };

  test("tells replicas, first ordinal and deletion, asked with the token of now", async () => {
    answer = { status: 200, body: JSON.stringify({ metadata: {}, spec: { replicas: 5, ordinals: { start: 2 } } }) };
    const wanted = await source().read();
    assert.deepEqual(wanted, { first: 2, replicas: 5, isLive: true, isDeleted: false });
    writeFileSync(join(directory, "token"), "second\n");
    answer = { status: 200, body: JSON.stringify({ metadata: { deletionTimestamp: "now" }, spec: {} }) };
    const deleted = await source().read();
    assert.deepEqual(deleted, { first: 0, replicas: 1, isLive: true, isDeleted: true });
    assert.deepEqual(asked, ["Bearer second /apis/apps/v1/namespaces/apps/statefulsets/db"]);
  });

  test("a set that is not there is deleted, and its pods are not scaled down", async () => {
    answer = { status: 404, body: "" };
    assert.equal(isScaledDown(await source().read(), 4), false);
  });

  test("without permission the number given is used, which scales nobody down; without one the error says what is missing", async () => {
    answer = { status: 403, body: "" };
    const wanted = await source("--replicas=3").read();
    assert.equal(wanted.replicas, 3);
    assert.equal(isScaledDown(wanted, 4), false);
    await assert.rejects(source().read(), /status 403: the service account needs the verb get on statefulsets\/db/);
  });
});

test("a file tells how many pods there are to be, each time as it is then", async () => {
  const directory = mkdtempSync(join(tmpdir(), "kvorum-wanted-"));
  try {
    const path = join(directory, "replicas");
    const source = wantedSource(settings(`--replicas-file=${path}`), {}, systemClock);
    writeFileSync(path, "5\n");
    assert.equal(isScaledDown(await source.read(), 4), false);
    writeFileSync(path, "3\n");
    assert.equal(isScaledDown(await source.read(), 4), true);
    writeFileSync(path, "0\n");
    assert.equal(isScaledDown(await source.read(), 4), false, "to zero all stay members");
    writeFileSync(path, "three\n");
    await assert.rejects(source.read(), /says "three": it must hold the number of pods/);
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
});

test("settings come from variables where no flag is given, and errors name the variable", () => {
  const flags = new FlagSet(POD_FLAGS);
  flags.parse(["--name=db-1", "--client-port=1"]);
  fromEnvironment(flags, { KVORUM_POD_CLIENT_PORT: "2", KVORUM_POD_SERVICE: "all", KVORUM_POD_LEAVE_TIMEOUT: "5s" });
  const { clientPort, service, leaveTimeoutMs, ordinal } = podSettings(flags, { file: "kvorum", args: [] }, []);
  assert.deepEqual([clientPort, service, leaveTimeoutMs, ordinal], [1, "all", 5_000, 1]);
  assert.throws(() => fromEnvironment(flags, { KVORUM_POD_REPLICAS: "many" }), /KVORUM_POD_REPLICAS=many: /);
  assert.throws(() => settings("--cert-file=a"), /--cert-file and --key-file belong together/);
  assert.throws(() => settings("--restore-time=2026-12-01T15:04:05Z"), /need --restore-store/);
  assert.deepEqual(settings("--restore-store=/b", "--restore-revision=7").restore, ["--store=/b", "--revision=7"]);
  assert.throws(() => settings("--name=host"), /host is no pod's of a StatefulSet/);
});

function settings(...given: readonly string[]) {
  const flags = new FlagSet(POD_FLAGS);
  flags.parse(["--name=db-4", ...given]);
  return podSettings(flags, { file: "kvorum", args: [] }, []);
}
