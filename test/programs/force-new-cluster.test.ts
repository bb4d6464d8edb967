import assert from "node:assert/strict";
import { join } from "node:path";
import { after, type TestContext, test } from "node:test";
import { connect, type RawClient } from "../../src/client/raw.ts";
import { ClusterService, KVService, type Member } from "../../src/proto/etcdserverpb.ts";
import { tempDir } from "../harness/in-process.ts";
import { freePorts } from "../harness/server.ts";
import { patience, waitFor } from "../harness/wait.ts";
import { MemberProcess } from "./member-process.ts";

// The last resort: most members are permanently lost, and a remaining one becomes a cluster of its own.

const dir = tempDir();
after(() => dir.remove());
let tests = 0;

interface Machine {
  readonly name: string;
  readonly args: readonly string[];
  readonly peer: string;
  readonly process: MemberProcess;
  readonly client: RawClient;
}

async function machines(t: TestContext, count: number): Promise<Machine[]> {
  const ports = await freePorts(2 * count);
  const home = join(dir.path, `${tests++}`);
  return Array.from({ length: count }, (_, i) => {
    const peer = `http://127.0.0.1:${ports[2 * i]}`;
    const url = `http://127.0.0.1:${ports[2 * i + 1]}`;
    const args = [
      ...["--name", `m${i}`, "--data-dir", join(home, `m${i}`)],
      ...["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer],
      ...["--listen-client-urls", url, "--advertise-client-urls", url],
    ];
    const client = connect(url);
    t.after(() => client.close());
    return { name: `m${i}`, args, peer, process: new MemberProcess(t, args), client };
  });
}

const clusterOf = (members: readonly Machine[]): string[] => [
  "--initial-cluster",
  members.map(({ name, peer }) => `${name}=${peer}`).join(","),
];

const put = ({ client }: Machine, key: string) =>
  client.unary(KVService.Put, { key: Buffer.from(key), value: Buffer.from("v") }, { timeoutMs: patience(10_000) });

async function has({ client }: Machine, key: string): Promise<boolean> {
  return (
    (await client.unary(KVService.Range, { key: Buffer.from(key) }, { timeoutMs: patience(10_000) })).kvs.length > 0
  );
}

async function membersOf({ client }: Machine): Promise<Member[]> {
  return (await client.unary(ClusterService.MemberList, { linearizable: true }, { timeoutMs: patience(10_000) }))
    .members;
}

test("one of three continues alone with everything that was written, and adds new members", async (t) => {
  const [first, second, third, fresh] = (await machines(t, 4)) as [Machine, Machine, Machine, Machine];
  const founders = [first, second, third];
  for (const { process, args } of founders) process.spawn([...args, ...clusterOf(founders)]);
  await Promise.all(founders.map(({ process }) => process.serves()));
  for (let i = 0; i < 20; i++) await put(second, `k${i}`);
  await waitFor("the first member has all", () => has(first, "k19"));
  await Promise.all(founders.map(({ process }) => process.kill("SIGKILL")));

  first.process.spawn([...first.args, "--force-new-cluster"]);
  await first.process.serves();
  assert.deepEqual(
    (await membersOf(first)).map(({ name, peerUrls }) => [name, ...peerUrls]),
    [["m0", first.peer]],
  );
  for (let i = 0; i < 20; i++) assert.ok(await has(first, `k${i}`));
  await put(first, "alone");

  // The next start is an ordinary one, and the cluster grows again.
  await first.process.kill("SIGKILL");
  first.process.spawn([...first.args]);
  await first.process.serves();
  assert.equal((await membersOf(first)).length, 1);
  await first.client.unary(ClusterService.MemberAdd, { peerUrls: [fresh.peer] }, { timeoutMs: patience(10_000) });
  fresh.process.spawn([...fresh.args, ...clusterOf([first, fresh]), "--initial-cluster-state", "existing"]);
  await fresh.process.serves();
  assert.ok(await has(fresh, "alone"));
  assert.ok(await has(fresh, "k0"));
});

test("a learner whose voters are lost becomes the only voter", async (t) => {
  const [voter, learner] = (await machines(t, 2)) as [Machine, Machine];
  voter.process.spawn([...voter.args, ...clusterOf([voter])]);
  await voter.process.serves();
  await put(voter, "before");
  await voter.client.unary(ClusterService.MemberAdd, { peerUrls: [learner.peer], isLearner: true });
  learner.process.spawn([...learner.args, ...clusterOf([voter, learner]), "--initial-cluster-state", "existing"]);
  await learner.process.serves();
  await voter.process.kill("SIGKILL");
  await learner.process.kill("SIGKILL");

  learner.process.spawn([...learner.args, "--force-new-cluster"]);
  await learner.process.serves();
  assert.deepEqual(
    (await membersOf(learner)).map(({ name, isLearner }) => [name, isLearner]),
    [["m1", false]],
  );
  assert.ok(await has(learner, "before"));
  await put(learner, "after");
});
