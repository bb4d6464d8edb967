import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import {
  cpSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { flagSettings } from "../../src/config/settings/definitions.ts";
import { KVORUM_VERSION } from "../../src/programs/server/version.ts";
import { ourEtcd, repositoryRoot, requireProgram, run } from "../harness/programs.ts";
import { freePorts } from "../harness/server.ts";
import { waitFor } from "../harness/wait.ts";

const bin = (name: string) => ({ file: process.execPath, args: [join(repositoryRoot, "bin", name)] });
const etcd = bin("etcd");

function tempDir(t: TestContext): string {
  const dir = mkdtempSync(join(tmpdir(), "kvorum-program-"));
  t.after(() => rmSync(dir, { recursive: true, force: true }));
  return dir;
}

test("the version is in the first line as etcd prints it", async () => {
  const { code, stdout } = await run(etcd, ["--version"]);
  assert.equal(code, 0);
  assert.match(
    stdout.toString(),
    /^etcd Version: 3\.7\.1\nkvorum Version: \d+\.\d+\.\d+\nNode Version: v\d+\S*\nOS\/Arch: \w+\/\w+\n$/,
  );
  assert.deepEqual((await run(etcd, ["-version", "--name", "a"])).stdout, stdout);
});

test("the version is the package's", () => {
  assert.equal(KVORUM_VERSION, JSON.parse(readFileSync(join(repositoryRoot, "package.json"), "utf8")).version);
});

test("help prints the usage and then every flag with its default", async () => {
  const { code, stdout, stderr } = await run(etcd, ["--help"]);
  assert.equal(code, 0);
  assert.match(stderr, /^Usage:\n/);
  for (const { name } of flagSettings) assert.ok(stdout.toString().includes(`\n  --${name} '`), name);
  assert.match(stdout.toString(), /CompactHashCheck=true\|false \(ALPHA - default=false\)/);
});

test("at a terminal, too, every line is one of the log", { skip: requireProgram("script") }, async (t) => {
  const [client, peer] = (await freePorts(2)).map((port) => `http://127.0.0.1:${port}`);
  const flags = [
    `--data-dir=${join(tempDir(t), "data")}`,
    `--listen-client-urls=${client}`,
    `--advertise-client-urls=${client}`,
    `--listen-peer-urls=${peer}`,
    `--initial-advertise-peer-urls=${peer}`,
    `--initial-cluster=default=${peer}`,
  ];
  const command = [etcd.file, ...etcd.args, ...flags].join(" ");
  // The terminal is script's; what ends it ends the member.
  const terminal = spawn("script", ["-qefc", command, "/dev/null"], { stdio: ["pipe", "pipe", "inherit"] });
  let output = "";
  terminal.stdout.on("data", (chunk: Buffer) => {
    output += chunk;
  });
  const ended = once(terminal, "exit");
  t.after(() => terminal.kill("SIGKILL"));
  await waitFor("it serves", () => output.includes("ready to serve client requests"), 60_000);
  // Interrupt from the terminal.
  terminal.stdin.write("\x03");
  await ended;
  const lines = output.split("\r\n").filter((line) => line !== "" && line !== "^C");
  for (const line of lines) assert.doesNotThrow(() => JSON.parse(line.replace(/^\^C/, "")), `not JSON: ${line}`);
  assert.ok(lines.length > 10);
});

test("an invalid flag ends with 2, the text and the usage", async () => {
  const { code, stdout, stderr } = await run(etcd, ["--foo"]);
  assert.equal(code, 2);
  assert.equal(stdout.length, 0);
  assert.match(stderr, /^flag provided but not defined: -foo\nUsage:\n/);
});

test("a wrong configuration ends with 1 and is logged as etcd logs it", async () => {
  const { code, stderr } = await run(etcd, ["--listen-client-urls=http://127.0.0.1:1"]);
  assert.equal(code, 1);
  const lines = stderr
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line));
  const error = "--advertise-client-urls is required when --listen-client-urls is set explicitly";
  assert.deepEqual(
    lines.map(({ level, msg, error }) => ({ level, msg, error })),
    [
      {
        level: "warn",
        msg: "Running http and grpc server on single port. This is not recommended for production.",
        error: undefined,
      },
      { level: "info", msg: "Running: ", error: undefined },
      { level: "warn", msg: "failed to verify flags", error },
      { level: "warn", msg: "advertise client URLs are not set", error },
    ],
  );
});

test("a wrong bootstrap ends with 1 in the configured log", async (t) => {
  const dir = tempDir(t);
  const log = join(dir, "etcd.log");
  const { code, stderr } = await run(
    etcd,
    ["--name=x", "--initial-cluster=a=http://localhost:2380", `--log-outputs=${log}`],
    {
      cwd: dir,
    },
  );
  assert.equal(code, 1);
  assert.equal(stderr, "");
  const { level, msg, error } = JSON.parse(readFileSync(log, "utf8").trim().split("\n").at(-1)!);
  assert.deepEqual(
    [level, msg, error],
    ["fatal", "discovery failed", `couldn't find local name "x" in the initial cluster configuration`],
  );
});

test("the proxies are commands of the program, and fail with their reason and 1", async () => {
  const gateway = await run(etcd, ["gateway", "--endpoints=nothing", "start"]);
  assert.equal(gateway.code, 1);
  assert.match(gateway.stderr, /"msg":"Running: ".*\nerror parsing endpoint "nothing"/s);
  const grpcProxy = await run(etcd, ["grpc-proxy", "start", "--resolver-ttl=5"]);
  assert.equal(grpcProxy.code, 1);
  assert.match(grpcProxy.stderr, /^invalid resolver-prefix ""/);
});

test("a launcher works through a symbolic link", async (t) => {
  const link = join(tempDir(t), "etcd");
  symlinkSync(join(repositoryRoot, "bin", "etcd"), link);
  const { code, stdout } = await run(link, ["--version"]);
  assert.equal(code, 0);
  assert.match(stdout.toString(), /^etcd Version: 3/);
});

test("a launcher of a package that was not built says how to build it", async (t) => {
  const dir = tempDir(t);
  mkdirSync(join(dir, "bin"));
  cpSync(join(repositoryRoot, "bin"), join(dir, "bin"), { recursive: true });
  for (const name of ["etcd", "etcdctl", "etcdutl", "kvorum"]) {
    const { code, stderr } = await run({ file: process.execPath, args: [join(dir, "bin", name)] }, []);
    assert.equal(code, 1);
    assert.equal(stderr, `${name} is not built: run "npm install && npm run build" in ${dir}/\n`);
  }
});

test("kvorum is the other programs under one name", async () => {
  const kvorum = bin("kvorum");
  assert.deepEqual((await run(kvorum, ["server", "--version"])).stdout, (await run(etcd, ["--version"])).stdout);
  assert.match(
    (await run(kvorum, ["utl", "version"])).stdout.toString(),
    /^etcdutl version: 3\.7\.1\nAPI version: 3\.7\n/,
  );
  assert.match(
    (await run(kvorum, ["ctl", "version"])).stdout.toString(),
    /^etcdctl version: 3\.7\.1\nAPI version: 3\.7\n/,
  );
  assert.equal((await run(kvorum, ["import"])).code, 2);
  assert.match((await run(kvorum, ["nonsense"])).stderr, /unknown command "nonsense"/);
  assert.equal((await run(kvorum, ["help"])).code, 0);
});

interface Running {
  readonly child: ChildProcess;
  readonly exit: Promise<readonly [code: number | null, signal: NodeJS.Signals | null]>;
  entries(): { level: string; msg: string; [field: string]: unknown }[];
}

function start(t: TestContext, args: readonly string[], env: Readonly<Record<string, string>> = {}): Running {
  const { file, args: first } = ourEtcd();
  const dir = tempDir(t);
  const own = ["--name=a", `--data-dir=${dir}/data`, "--listen-peer-urls=http://127.0.0.1:0"];
  const child = spawn(file, [...first, ...own, ...args], {
    env: { ...process.env, ...env },
    stdio: ["ignore", "ignore", "pipe"],
  });
  t.after(() => child.kill("SIGKILL"));
  let log = "";
  child.stderr!.on("data", (chunk) => {
    log += chunk;
  });
  const exit = once(child, "exit") as Promise<[number | null, NodeJS.Signals | null]>;
  const entries = () =>
    log
      .split("\n")
      .slice(0, -1)
      .filter((line) => line.startsWith("{"))
      .map((line) => JSON.parse(line));
  return { child, exit, entries };
}

const SOMEWHERE = ["--listen-client-urls=http://127.0.0.1:0", "--advertise-client-urls=http://127.0.0.1:1"];

const says = (running: Running, msg: string) => running.entries().some((entry) => entry.msg === msg);

for (const [signal, name] of [
  ["SIGTERM", "terminated"],
  ["SIGINT", "interrupt"],
] as const) {
  test(`${signal} shuts a member down in order and then ends it by that signal`, async (t) => {
    const running = start(t, SOMEWHERE);
    await waitFor("the member serves", () => says(running, "successfully notified init daemon"));
    running.child.kill(signal);
    assert.deepEqual(await running.exit, [null, signal]);
    const entry = running.entries().find(({ msg }) => msg === "received signal; shutting down");
    assert.equal(entry?.["signal"], name);
    assert.equal(running.entries().at(-1)?.msg, "closed etcd server");
    assert.deepEqual(
      running
        .entries()
        .filter(({ msg }) => /^clos(ing|ed) etcd server$/.test(msg))
        .map(({ msg, name }) => [msg, name]),
      [
        ["closing etcd server", "a"],
        ["closed etcd server", "a"],
      ],
    );
  });
}

test("a member logs its configuration at its start", async (t) => {
  const running = start(t, [...SOMEWHERE, "--max-snapshots=3"]);
  await waitFor("the member serves", () => says(running, "ready to serve client requests"));
  const entry = running.entries().find(({ msg }) => msg === "starting an etcd server");
  assert.equal(entry?.["etcd-version"], "3.7.1");
  assert.equal(entry?.["heartbeat-interval"], "100ms");
  assert.equal(entry?.["max-snapshots"], 3);
  assert.equal(entry?.["initial-cluster"], "a=http://localhost:2380");
  assert.ok(says(running, "--max-snapshots is deprecated in 3.6 and will be decommissioned in 3.8."));
  assert.ok(says(running, "Initialize and start etcd server"));
});

test("at level debug the log shows calls, entries and commits", async (t) => {
  const running = start(t, [...SOMEWHERE, "--log-level=debug"]);
  await waitFor("entries", () => says(running, "Applying entry"));
  await waitFor("commits", () => says(running, "committed the database"));
});

test("a port in use ends the start with 1 and is named", async (t) => {
  const taken = createServer().listen(0, "127.0.0.1");
  t.after(() => taken.close());
  await once(taken, "listening");
  const { port } = taken.address() as { port: number };
  const url = `http://127.0.0.1:${port}`;
  const running = start(t, [`--listen-client-urls=${url}`, `--advertise-client-urls=${url}`]);
  assert.deepEqual(await running.exit, [1, null]);
  const last = running.entries().find(({ level }) => level === "fatal");
  assert.equal(last?.msg, "discovery failed");
  assert.match(String(last?.["error"]), new RegExp(`listen tcp 127.0.0.1:${port}: bind: address already in use`));
});

test("a data directory that is a file ends the start with 1 and the reason, not with a stack of Node's", async (t) => {
  const file = join(tempDir(t), "data");
  writeFileSync(file, "");
  const { code, stderr } = await run(etcd, [
    ...SOMEWHERE,
    "--listen-peer-urls=http://127.0.0.1:0",
    `--data-dir=${file}`,
  ]);
  assert.equal(code, 1);
  const last = JSON.parse(stderr.trim().split("\n").at(-1)!);
  assert.deepEqual([last.level, last.msg], ["fatal", "the data directory cannot be used"]);
  assert.ok(last.error.includes(file), last.error);
});

test("a member killed while it served a unix socket starts again on it, but not on one with a listener", async (t) => {
  const socket = join(tempDir(t), "client.sock");
  const args = [`--listen-client-urls=unix://${socket}`, "--advertise-client-urls=http://127.0.0.1:1"];
  const killed = start(t, args);
  await waitFor("the member serves", () => says(killed, "ready to serve client requests"));
  killed.child.kill("SIGKILL");
  await killed.exit;
  assert.ok(lstatSync(socket).isSocket());
  const second = start(t, args);
  await waitFor("the member serves", () => says(second, "ready to serve client requests"));
  const third = start(t, args);
  assert.deepEqual(await third.exit, [1, null]);
  const fatal = third.entries().find(({ level }) => level === "fatal");
  assert.match(String(fatal?.["error"]), /client\.sock: bind: address already in use/);
  second.child.kill("SIGTERM");
  await second.exit;
  assert.ok(!existsSync(socket));
});

test("a file that is not a socket is not removed to listen there", async (t) => {
  const socket = join(tempDir(t), "precious");
  writeFileSync(socket, "kept");
  const running = start(t, [`--listen-client-urls=unix://${socket}`, "--advertise-client-urls=http://127.0.0.1:1"]);
  assert.deepEqual(await running.exit, [1, null]);
  assert.equal(readFileSync(socket, "utf8"), "kept");
});

const RECEIVER = `
import socket, struct, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
s.bind(sys.argv[1])
print("bound", flush=True)
while True:
    data, ancillary, flags, address = s.recvmsg(4096, 1024)
    print(struct.unpack("iII", ancillary[0][2][:12])[0], data.decode(), flush=True)
`;

test("systemd is notified by the member's own process that it is ready and that it stops", {
  skip: requireProgram("python3"),
}, async (t) => {
  const socket = join(tempDir(t), "notify");
  const receiver = spawn("python3", ["-c", RECEIVER, socket], { stdio: ["ignore", "pipe", "inherit"] });
  t.after(() => receiver.kill());
  let heard = "";
  receiver.stdout.on("data", (chunk) => {
    heard += chunk;
  });
  await waitFor("the receiver", () => heard === "bound\n");
  const running = start(t, SOMEWHERE, { NOTIFY_SOCKET: socket });
  await waitFor("READY=1 from the member", () => heard === `bound\n${running.child.pid} READY=1\n`);
  running.child.kill("SIGTERM");
  await running.exit;
  await waitFor("STOPPING=1 from the member", () => heard.endsWith(`${running.child.pid} STOPPING=1\n`));
});
