/**
 * Stock etcdctl against this server and against stock etcd: output and exit code must be the same.
 *
 * KVORUM_STOCK_ETCDCTL chooses another etcdctl than the one on PATH.
 */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { HashKVRequest, KVService, MaintenanceService, RangeResponse } from "../../src/proto/etcdserverpb.ts";
import { ourEtcd, requireProgram, requireStockEtcd, run, stockEtcd } from "../harness/programs.ts";
import { type Server, startServer, startServers } from "../harness/server.ts";
import { show } from "./compare.ts";

const etcdctl = process.env["KVORUM_STOCK_ETCDCTL"] || "etcdctl";
/** Since 3.6 etcdctl leaves file operations to etcdutl: KVORUM_STOCK_ETCDUTL is its path then. */
const snapshotTool = process.env["KVORUM_STOCK_ETCDUTL"] || etcdctl;
const env = { ETCDCTL_API: "3" };

interface Command {
  readonly args: readonly string[];
  readonly input?: string;
}

const sh = (line: string, input?: string): Command => ({
  args: line.split(" ").map((word) => word.replaceAll("_", " ")),
  ...(input === undefined ? {} : { input }),
});

/**
 * In order: each command sees the effects of the previous ones. An underscore stands for a blank within an argument.
 */
const commands: readonly Command[] = [
  sh("put foo bar"),
  sh("put foo bar2 --prev-kv"),
  sh("put foo", "value from stdin"),
  sh("put foo1 bar1"),
  sh("put foo2 bar2"),
  sh("put foo3 bar3 -w json"),
  sh("put foo/a/b deep -w fields"),
  sh("put key_with_blank value_with_blank"),
  sh("put -- --dashes --value"),
  sh("put foo --ignore-value"),
  sh("put nothing --ignore-value"),
  sh("put foo x --ignore-lease"),
  sh("put nothing x --ignore-lease"),
  sh("put foo x --lease=1234abcd"),
  sh("put foo"),
  sh("get foo"),
  sh("get foo --print-value-only"),
  sh("get nothing"),
  sh("get foo --hex"),
  sh("get foo -w json"),
  sh("get foo -w fields"),
  sh("get foo -w simple"),
  sh("get foo --prefix"),
  sh("get foo --prefix --keys-only"),
  sh("get foo --prefix --count-only -w fields"),
  sh("get foo --prefix --limit=2"),
  sh("get foo --prefix --limit=2 -w json"),
  sh("get foo --from-key"),
  sh("get foo1 foo3"),
  ...["ASCEND", "DESCEND"].flatMap((order) =>
    ["CREATE", "KEY", "MODIFY", "VALUE", "VERSION"].map((by) =>
      sh(`get foo --prefix --order=${order} --sort-by=${by}`),
    ),
  ),
  sh("get foo --order=SIDEWAYS"),
  sh("get foo --rev=2"),
  sh("get foo --rev=3 -w json"),
  sh("get foo --rev=4711"),
  sh("get foo --consistency=s"),
  sh("get foo --consistency=x"),
  sh("get"),
  sh("get  --prefix --keys-only"),
  sh("get foo --prefix --from-key"),
  sh("txn", 'value("foo") = "x"\n\nput t1 yes\nget foo\n\nput t1 no\n\n'),
  sh("txn", 'mod("foo") > "1"\nversion("foo1") = "1"\n\nget t1\ndel foo3 --prev-kv\n\nput t1 no\n\n'),
  sh("txn", 'create("none") = "0"\n\nput t2 "quoted value"\n\n\n'),
  sh("txn -w json", 'value("foo") = "wrong"\n\nput t3 yes\n\nget foo --prefix\nput t3 no\n\n'),
  sh("txn", "\nput same 1\nput same 2\n\n\n"),
  sh("txn", "nonsense\n\n\n\n"),
  sh("del foo1"),
  sh("del foo1"),
  sh("del foo2 --prev-kv"),
  sh("del t --prefix --prev-kv -w json"),
  sh("del a b"),
  sh("del zzz --from-key"),
  sh("put p/1 a"),
  sh("put p/2 b"),
  sh("del p/ --prefix -w fields"),
  sh("compaction 5"),
  sh("compaction 5"),
  sh("compaction 7 --physical"),
  sh("compaction 4711"),
  sh("compaction x"),
  sh("get foo --rev=3"),
  sh("lease list"),
  sh("lease grant 0"),
  sh("lease grant x"),
  sh("lease revoke 1234abcd"),
  sh("lease timetolive 1234abcd"),
  sh("lease timetolive 1234abcd --keys -w json"),
  sh("lease keep-alive 1234abcd --once"),
  sh("alarm list"),
  sh("alarm disarm"),
  sh("defrag"),
  sh("endpoint health"),
  sh("move-leader 1234abcd"),
  sh("member remove 1234abcd"),
  sh("member add other"),
  sh("member promote 1234abcd"),
  sh("auth enable"),
  sh("user list"),
  sh("role get nothing"),
];

describe("stock etcdctl", { skip: requireStockEtcd() || requireProgram(etcdctl) }, () => {
  let ours: Server;
  let stock: Server;
  let directory: string;
  before(async () => {
    directory = mkdtempSync(join(tmpdir(), "kvorum-etcdctl-"));
    [ours, stock] = (await startServers([ourEtcd(), stockEtcd()])) as [Server, Server];
  });
  after(async () => {
    rmSync(directory, { recursive: true, force: true });
    await Promise.all([ours?.close(), stock?.close()]);
  });

  /** Runs a command on both and compares the output. */
  async function same(command: Command): Promise<void> {
    const [a, b] = await Promise.all([ours, stock].map((server) => ctl(server, command)));
    assert.equal(a, b, "on ours (actual) and on stock (expected)");
  }

  for (const command of commands) {
    test(command.args.join(" ") + (command.input === undefined ? "" : ` < ${JSON.stringify(command.input)}`), () =>
      same(command),
    );
  }

  test("endpoint hashkv after all that", async () => {
    const hashes = await Promise.all([ours, stock].map((server) => ctl(server, sh("endpoint hashkv -w json"))));
    const of = (text: string) => JSON.parse(text.split("\n")[0]!)[0].HashKV;
    assert.equal(of(hashes[0]!).hash, of(hashes[1]!).hash);
    assert.equal(of(hashes[0]!).compact_revision, of(hashes[1]!).compact_revision);
  });

  test("lock runs a command while it holds the lock", async () => {
    await same(sh("lock a-lock echo held"));
  });

  test("get -w protobuf", async () => {
    const [a, b] = await Promise.all(
      [ours, stock].map(async (server) => {
        const { stdout } = await run(
          etcdctl,
          ["--endpoints", server.endpoint, "get", "", "--prefix", "-w", "protobuf"],
          { env },
        );
        const response = RangeResponse.decode(stdout);
        Object.assign(response.header!, { clusterId: 0n, memberId: 0n, raftTerm: 0 });
        return show(response);
      }),
    );
    assert.equal(a, b);
  });

  test("lease grant, put with it, timetolive --keys, keep-alive --once, list, revoke", async () => {
    const [a, b] = await Promise.all(
      [ours, stock].map(async (server) => {
        const granted = await ctl(server, sh("lease grant 1000"), (text) => text);
        const id = /lease ([0-9a-f]+) granted/.exec(granted)![1]!;
        const lines = [granted];
        for (const line of [
          `put leased/1 v --lease=${id}`,
          "get leased/1 -w json",
          `lease timetolive ${id} --keys`,
          `lease timetolive ${id} --keys -w json`,
          `lease timetolive ${id} -w fields`,
          `lease keep-alive ${id} --once`,
          "lease list",
          `lease revoke ${id}`,
          "get leased/ --prefix --keys-only",
          `lease timetolive ${id}`,
        ]) {
          lines.push(await ctl(server, sh(line)));
        }
        return normalise(lines.join("\n").replaceAll(id, "<lease>"), server);
      }),
    );
    assert.equal(a, b);
  });

  for (const args of [
    "watch w/ --prefix --rev=FIRST",
    "watch w/ --prefix --rev=FIRST --prev-kv",
    "watch w/ --prefix --rev=FIRST -w json",
    "watch w/ --prefix --rev=FIRST -w fields",
    "watch w/a w/z --rev=FIRST",
  ]) {
    test(args, async () => {
      const [a, b] = await Promise.all(
        [ours, stock].map(async (server) => {
          const { header } = await server.client.unary(KVService.Put, {
            key: Buffer.from("w/a"),
            value: Buffer.from("1"),
          });
          await ctl(server, sh("put w/a 2"));
          await ctl(server, sh("del w/a"));
          await ctl(server, sh("put w/end end-of-watch"));
          const words = args.replace("FIRST", String(header!.revision)).split(" ");
          return normalise(await until(server, words, /end-of-watch|ZW5kLW9mLXdhdGNo/), server);
        }),
      );
      assert.equal(a, b);
    });
  }

  test("watch of a compacted revision", async () => {
    await same(sh("watch w/ --prefix --rev=2"));
  });

  test("elect proclaims, and elect -l sees it", async () => {
    for (const server of [ours, stock]) {
      const campaign = start(server, ["elect", "an-election", "candidate"]);
      await campaign.until(/candidate\n/);
      const observed = await until(server, ["elect", "-l", "an-election"], /candidate\n/);
      assert.match(observed, /^an-election\/[0-9a-f]+\ncandidate\n$/m);
      campaign.stop();
    }
  });

  test("endpoint status", async () => {
    for (const server of [ours, stock]) {
      const [status] = JSON.parse(await ctl(server, sh("endpoint status -w json"), (text) => text.split("\n")[0]!));
      assert.equal(status.Endpoint, server.endpoint);
      assert.match(status.Status.version, /^3\.\d+\.\d+$/);
      assert.equal(status.Status.leader, status.Status.header.member_id);
      for (const field of ["dbSize", "raftIndex", "raftTerm"]) assert.ok(status.Status[field] > 0, field);
    }
  });

  test("member list", async () => {
    await same(sh("member list"));
    await same(sh("member list -w json"));
  });

  test("snapshot save and status; stock etcd serves the restored snapshot with the same hash", async () => {
    const file = join(directory, "snapshot.db");
    const saved = await run(etcdctl, ["--endpoints", ours.endpoint, "snapshot", "save", file], { env });
    assert.equal(saved.code, 0, saved.stderr);
    const status = await run(snapshotTool, ["snapshot", "status", file, "-w", "json"], { env });
    const hash = await ours.client.unary(MaintenanceService.HashKV, HashKVRequest.create());
    assert.equal(JSON.parse(status.stdout.toString()).revision, hash.header!.revision);

    const dataDir = join(directory, "restored");
    const restored = await run(snapshotTool, ["snapshot", "restore", file, "--data-dir", dataDir], { env });
    assert.equal(restored.code, 0, restored.stderr);
    const server = await startServer(stockEtcd(), { dataDir });
    try {
      const again = await server.client.unary(MaintenanceService.HashKV, HashKVRequest.create());
      assert.deepEqual(
        { hash: again.hash, compactRevision: again.compactRevision, revision: again.header!.revision },
        { hash: hash.hash, compactRevision: hash.compactRevision, revision: hash.header!.revision },
      );
    } finally {
      await server.close();
    }
  });
});

async function ctl(
  server: Server,
  { args, input }: Command,
  clean: (text: string, server: Server) => string = normalise,
): Promise<string> {
  const { code, stdout, stderr } = await run(etcdctl, ["--endpoints", server.endpoint, ...args], {
    env,
    input: input ?? "",
  });
  return clean(`${stdout}${stderr}exit ${code}\n`, server);
}

/** Without the differences between any two servers: addresses, ids, terms, times. */
function normalise(text: string, server: Server): string {
  return text
    .replaceAll(server.endpoint, "<endpoint>")
    .replaceAll(server.peerUrl, "<peer url>")
    .replace(/"(cluster_id|member_id|raft_term|ID|id|lease)":\d+/g, '"$1":0')
    .replace(/"(ClusterID|MemberID|RaftTerm|Lease|ID)" : \d+/g, '"$1" : 0')
    .replace(/"ttl":\d+/g, '"ttl":0')
    .replace(/"TTL" : \d+/g, '"TTL" : 0')
    .replace(/remaining\(\d+s\)/g, "remaining(<n>s)")
    .replace(/\b[0-9a-f]{14,16}\b/g, "<id>")
    .replace(/[\d.]+(µs|ms|s)\b/g, "<time>")
    .replace(/"ts":"[^"]*"|"caller":"[^"]*"|"target":"[^"]*"|LocalAddr: '[^']*'|endpoint:\/\/client-[^"\s]*/g, "");
}

/** Runs a command that does not end by itself until its output matches. */
async function until(server: Server, args: readonly string[], pattern: RegExp): Promise<string> {
  const running = start(server, args);
  try {
    return await running.until(pattern);
  } finally {
    running.stop();
  }
}

function start(server: Server, args: readonly string[]) {
  const child = spawn(etcdctl, ["--endpoints", server.endpoint, ...args], {
    env: { ...process.env, ...env },
    stdio: ["ignore", "pipe", "pipe"],
    timeout: 20_000,
  });
  let printed = "";
  let changed = () => {};
  const take = (chunk: Buffer) => {
    printed += chunk;
    changed();
  };
  child.stdout.on("data", take);
  child.stderr.on("data", take);
  child.on("exit", () => changed());
  return {
    until: (pattern: RegExp) =>
      new Promise<string>((resolve, reject) => {
        changed = () => {
          if (pattern.test(printed)) resolve(printed);
          else if (child.exitCode !== null || child.signalCode !== null) reject(new Error(`ended after: ${printed}`));
        };
        changed();
      }),
    stop: () => child.kill("SIGTERM"),
  };
}
