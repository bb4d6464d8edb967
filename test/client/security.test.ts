import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, describe, type TestContext, test } from "node:test";
import type { ClientTls } from "../../src/api/listeners/client-tls.ts";
import { Client, ClientClosedError, type ClientOptions, op } from "../../src/client/index.ts";
import { NO_TLS } from "../../src/rpc/tls/context.ts";
import { AUTH_DEFAULTS } from "../../src/server/contract/options.ts";
import { Authority, writePair } from "../harness/certificates.ts";
import { startInProcess, tempDir } from "../harness/in-process.ts";
import { waitFor } from "../harness/wait.ts";

const dir = tempDir();
after(() => dir.remove());
const ca = await Authority.create("ca");
const caFile = join(dir.path, "ca.crt");
writeFileSync(caFile, ca.pem);
const serverFiles = writePair(
  dir.path,
  "server",
  await ca.issue({ cn: "server", names: ["127.0.0.1", "etcd.example"] }),
);
const clientFiles = writePair(dir.path, "client", await ca.issue({ cn: "client" }));

const clientTls: ClientTls = {
  ...NO_TLS,
  ...serverFiles,
  trustedCaFile: caFile,
  clientCertAuth: true,
  skipClientSanVerify: true,
  minVersion: "TLS1.2",
  autoTls: false,
  selfSignedCertValidityYears: 1,
};

function clientOf(t: TestContext, options: ClientOptions): Client {
  const client = new Client({ timeoutMs: 60_000, ...options });
  t.after(() => client.close());
  return client;
}

describe("over TLS", () => {
  async function start(t: TestContext) {
    const listenClient = [{ kind: "tcp", host: "127.0.0.1", port: 0, url: "https://127.0.0.1:0" }] as const;
    const server = await startInProcess({ etcd: { clientTls, listenClient } });
    t.after(() => server.close());
    return server;
  }

  test("both sides present certificates, by file or as PEM", async (t) => {
    const { url } = await start(t);
    assert.match(url, /^https:/);
    const byFile = clientOf(t, { endpoints: url, tls: { caFile, ...clientFiles } });
    await byFile.put("a", "1");
    const [cert, key] = [readFileSync(clientFiles.certFile), readFileSync(clientFiles.keyFile, "utf8")];
    const byPem = clientOf(t, { endpoints: url, tls: { ca: ca.pem, cert, key, serverName: "etcd.example" } });
    assert.equal((await byPem.get("a"))?.value, "1");
  });

  test("a server that cannot be trusted gets no call, and the error says why", async (t) => {
    const { url } = await start(t);
    const other = await Authority.create("other");
    for (const [tls, problem] of [
      [{ ca: other.pem }, /certificate/],
      [{ caFile, serverName: "elsewhere" }, /altnames|elsewhere/],
    ] as const) {
      const client = clientOf(t, { endpoints: url, tls: { ...tls, ...clientFiles } });
      const waiting = client.get("a");
      await waitFor("the reason", () => problem.test(client.status[0]!.problem));
      client.close();
      await assert.rejects(waiting, ClientClosedError);
    }
  });

  test("renewed certificates are used by the next connection", async (t) => {
    const { url } = await start(t);
    const files = writePair(dir.path, "renewed", await (await Authority.create("wrong")).issue({ cn: "client" }));
    const client = clientOf(t, { endpoints: url, tls: { caFile, ...files } });
    const waiting = client.put("a", "renewed");
    await waitFor("a refusal", () => client.status[0]!.problem !== "");
    writePair(dir.path, "renewed", await ca.issue({ cn: "client" }));
    await waiting;
  });
});

test("a Unix socket is an endpoint", async (t) => {
  const path = join(dir.path, "etcd.sock");
  const listenClient = [{ kind: "unix", path, url: `unix://${path}` }] as const;
  const server = await startInProcess({ etcd: { listenClient } });
  t.after(() => server.close());
  const client = clientOf(t, { endpoints: `unix://${path}` });
  await client.put("a", "1");
  assert.equal((await client.get("a"))?.value, "1");
});

describe("with users", () => {
  async function start(t: TestContext) {
    const auth = { ...AUTH_DEFAULTS, bcryptCost: 4 };
    const server = await startInProcess({ server: { auth } });
    t.after(() => server.close());
    const root = clientOf(t, { endpoints: server.url, username: "root", password: "secret" });
    await root.auth.addUser("root", "secret");
    await root.auth.grantRole("root", "root");
    await root.auth.enable();
    return { server, root };
  }

  test("a client logs in when it must, and sees what its roles allow", async (t) => {
    const { server, root } = await start(t);
    await root.auth.addRole("reader");
    await root.auth.grantPermission("reader", "read", { prefix: "app/" });
    await root.auth.addUser("ada", "lovelace");
    await root.auth.grantRole("ada", "reader");
    assert.deepEqual(await root.auth.status(), { enabled: true, revision: (await root.auth.status()).revision });
    assert.deepEqual(await root.auth.users(), ["ada", "root"]);
    assert.deepEqual(await root.auth.rolesOf("ada"), ["reader"]);
    const [permission] = await root.auth.permissionsOf("reader");
    assert.deepEqual([permission?.access, Buffer.from(permission!.key).toString()], ["read", "app/"]);

    await root.put("app/a", "1");
    const ada = clientOf(t, { endpoints: server.url, username: "ada", password: "lovelace" });
    assert.equal((await ada.get("app/a"))?.value, "1");
    await assert.rejects(ada.put("app/a", "2"), { code: 7, maybeApplied: false });
    await assert.rejects(
      (async () => {
        for await (const _ of ada.watch("elsewhere"));
      })(),
      { code: 7 },
    );
    const stranger = clientOf(t, { endpoints: server.url, username: "ada", password: "wrong" });
    await assert.rejects(stranger.get("app/a"), { details: /authentication failed/ });
    const nobody = clientOf(t, { endpoints: server.url });
    await assert.rejects(nobody.get("app/a"), { details: /user name is empty/ });
  });

  test("calls and watches go on when users and roles change, and when tokens are gone", async (t) => {
    const { server, root } = await start(t);
    await root.auth.addRole("writer");
    await root.auth.grantPermission("writer", "readwrite", { all: true });
    await root.auth.addUser("ada", "lovelace");
    await root.auth.grantRole("ada", "writer");
    const ada = clientOf(t, { endpoints: server.url, username: "ada", password: "lovelace" });
    const watcher = ada.watch({ prefix: "k" });
    await watcher.ready;
    for (let i = 0; i < 5; i++) {
      await ada.put("k", `${i}`);
      await root.auth.addUser(`user-${i}`, "x");
      await Promise.all([ada.put("k", `${i}, again`), ada.txn({ success: [op.get("k")] })]);
    }
    // A changed password ends all tokens of its user.
    await root.auth.changePassword("ada", "byron");
    await root.auth.changePassword("ada", "lovelace");
    await ada.put("k", "last");
    const seen: string[] = [];
    for await (const event of watcher) {
      if (event.type !== "put" || seen.push(event.kv.value) === 11) break;
    }
    assert.deepEqual(seen.at(-1), "last");
  });
});
