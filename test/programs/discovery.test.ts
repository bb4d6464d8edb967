import assert from "node:assert/strict";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { systemClock } from "../../src/base/clock.ts";
import { connect } from "../../src/client/raw.ts";
import type { DiscoveryConfig } from "../../src/config/config.ts";
import { newConfig } from "../../src/config/load/new-config.ts";
import { joinByDiscovery } from "../../src/programs/server/discovery.ts";
import { ClusterService, KVService } from "../../src/proto/etcdserverpb.ts";
import { type InProcess, MemoryLogger, startInProcess, tempDir } from "../harness/in-process.ts";
import { freePorts } from "../harness/server.ts";
import { waitFor } from "../harness/wait.ts";
import { MemberProcess } from "./member-process.ts";

let registry: InProcess;
const dir = tempDir();
before(async () => {
  registry = await startInProcess();
});
after(async () => {
  await registry.close();
  dir.remove();
});

const bytes = (text: string): Uint8Array => Buffer.from(text);

async function put(key: string, value: string): Promise<void> {
  await registry.client.unary(KVService.Put, { key: bytes(key), value: bytes(value) });
}

/** A token for a cluster of `size`. */
async function newToken(name: string, size: string): Promise<DiscoveryConfig> {
  await put(`/_etcd/registry/${name}/_config/size`, size);
  return { ...newConfig().discovery, token: name, endpoints: [registry.url] };
}

function joinAs(config: DiscoveryConfig, id: number, logger = new MemoryLogger()) {
  return joinByDiscovery({ config, clock: systemClock, logger }, BigInt(id), `m${id}=http://127.0.0.1:${id}`);
}

const members = (...ids: number[]) => new Map(ids.map((id) => [`m${id}`, [`http://127.0.0.1:${id}`]]));

test("members that register under one token learn of each other when all are there", async () => {
  const config = await newToken("three", "3");
  const logger = new MemoryLogger();
  const first = joinAs(config, 0xa, logger);
  await waitFor("it waits", () => logger.has("waiting for peers from discovery service"));
  const others = [joinAs(config, 0xb), joinAs(config, 0xc)];
  const found = await Promise.all([first, ...others]);
  for (const one of found) assert.deepEqual(new Map([...one].sort()), new Map([...members(0xa, 0xb, 0xc)].sort()));
  const { kvs } = await registry.client.unary(KVService.Range, { key: bytes("/_etcd/registry/three/members/a") });
  assert.equal(Buffer.from(kvs[0]!.value).toString(), "m10=http://127.0.0.1:10");
});

test("a member that comes when the cluster is full is refused, one that was in it is not", async () => {
  const config = await newToken("full", "1");
  assert.deepEqual(await joinAs(config, 1), members(1));
  await assert.rejects(joinAs(config, 2), {
    name: "DiscoveryError",
    message: "failed to join discovery cluster (discovery: cluster is full)",
  });
  assert.deepEqual(await joinAs(config, 1), members(1));
});

test("an unknown token, or one whose size is not a number, is refused", async () => {
  const config = await newToken("sizeless", "1");
  await assert.rejects(joinAs({ ...config, token: "unknown" }, 1), {
    message: "failed to join discovery cluster (discovery: size key not found)",
  });
  for (const size of ["0", "-1", "three", ""]) {
    await assert.rejects(
      newToken("bad", size).then((bad) => joinAs(bad, 1)),
      {
        message: "failed to join discovery cluster (discovery: size key is bad)",
      },
    );
  }
});

test("invalid members in the registry are skipped with a warning", async () => {
  const config = await newToken("dirty", "1");
  await put("/_etcd/registry/dirty/members/junk", "junk");
  const logger = new MemoryLogger();
  assert.deepEqual(await joinAs(config, 1, logger), members(1));
  const warning = logger.lines.find((line) => line.message === "invalid peer info returned from discovery service");
  assert.equal(warning?.fields["memberKey"], "/_etcd/registry/dirty/members/junk");
  assert.equal(warning?.fields["discovery-token"], "dirty");
});

test("an unreachable registry is retried, and the log says so", async () => {
  const [port] = await freePorts(1);
  const config = {
    ...(await newToken("late", "1")),
    endpoints: [`http://127.0.0.1:${port}`],
    requestTimeoutMs: 200,
    dialTimeoutMs: 100,
  };
  const logger = new MemoryLogger();
  const joined = joinAs(config, 1, logger);
  await waitFor("it retries", () => logger.has("retry connecting to discovery service"));
  const late = await startInProcess({
    etcd: { listenClient: [{ kind: "tcp", host: "127.0.0.1", port: port!, url: "" }] },
  });
  try {
    const size = { key: bytes("/_etcd/registry/late/_config/size"), value: bytes("1") };
    await late.client.unary(KVService.Put, size);
    assert.deepEqual(await joined, members(1));
  } finally {
    await late.close();
  }
});

test("three members with a token and no --initial-cluster form a cluster; a fourth is refused", async (t) => {
  const { token } = await newToken("processes", "3");
  const ports = await freePorts(8);
  const processes = [0, 1, 2, 3].map((i) => {
    const peer = `http://127.0.0.1:${ports[2 * i]}`;
    const client = `http://127.0.0.1:${ports[2 * i + 1]}`;
    return new MemberProcess(t, [
      ...["--name", `n${i}`, "--data-dir", join(dir.path, `n${i}`)],
      ...["--discovery-token", token, "--discovery-endpoints", registry.url],
      ...["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer],
      ...["--listen-client-urls", client, "--advertise-client-urls", client],
    ]);
  });
  const founders = processes.slice(0, 3);
  for (const member of founders) member.spawn();
  await Promise.all(founders.map((member) => member.serves()));
  const client = connect(`http://127.0.0.1:${ports[1]}`);
  const list = await client.unary(ClusterService.MemberList, { linearizable: true });
  client.close();
  assert.deepEqual(list.members.map((member) => member.name).sort(), ["n0", "n1", "n2"]);

  const fourth = processes[3]!;
  fourth.spawn();
  assert.equal(await fourth.ended(), 1);
  const entry = await fourth.logged("failed to bootstrap; discovery token was already used");
  assert.equal(entry["error"], "failed to join discovery cluster (discovery: cluster is full)");
});
