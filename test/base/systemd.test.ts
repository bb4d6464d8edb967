import assert from "node:assert/strict";
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { JOURNAL_SOCKET, openJournalSink } from "../../src/base/log-journal.ts";
import { systemdNotifier } from "../../src/base/systemd.ts";

/** Binds a datagram socket as systemd does and prints each datagram with the kernel's pid of its sender. */
const RECEIVER = `
import socket, struct, sys
path = sys.argv[1]
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
s.bind("\\0" + path[1:] if path.startswith("@") else path)
print("bound", flush=True)
while True:
    data, ancillary, flags, address = s.recvmsg(65536, 1024)
    pid = struct.unpack("iII", ancillary[0][2][:12])[0]
    print(pid, data.hex(), flush=True)
`;

async function startReceiver(t: TestContext, path: string): Promise<() => Promise<{ pid: number; text: string }>> {
  const child: ChildProcess = spawn("python3", ["-c", RECEIVER, path], { stdio: ["ignore", "pipe", "inherit"] });
  t.after(() => child.kill());
  const lines: string[] = [];
  const waiting: ((line: string) => void)[] = [];
  let rest = "";
  child.stdout!.on("data", (chunk) => {
    const parts = (rest + chunk).split("\n");
    rest = parts.pop()!;
    for (const line of parts) {
      const wake = waiting.shift();
      if (wake === undefined) lines.push(line);
      else wake(line);
    }
  });
  const next = () => {
    const line = lines.shift();
    return line === undefined ? new Promise<string>((wake) => waiting.push(wake)) : Promise.resolve(line);
  };
  assert.equal(await next(), "bound");
  return async () => {
    const [pid, hex] = (await next()).split(" ");
    return { pid: Number(pid), text: Buffer.from(hex!, "hex").toString() };
  };
}

function tempDir(t: TestContext): string {
  const dir = mkdtempSync(join(tmpdir(), "kvorum-sd-"));
  t.after(() => rmSync(dir, { recursive: true, force: true }));
  return dir;
}

const missing =
  process.platform !== "linux"
    ? "Unix datagrams are implemented for Linux"
    : spawnSync("python3", ["--version"]).status === 0
      ? ""
      : "python3 is missing";
const skip = missing !== "" && process.env["KVORUM_REQUIRE_ALL"] !== "1" ? missing : false;

test("systemd receives the state, sent by this very process", { skip }, async (t) => {
  const path = join(tempDir(t), "notify");
  const receive = await startReceiver(t, path);
  assert.equal(await systemdNotifier({ NOTIFY_SOCKET: path }).notify("READY=1"), true);
  assert.deepEqual(await receive(), { pid: process.pid, text: "READY=1" });
});

test("an abstract socket works too", { skip }, async (t) => {
  const path = `@kvorum-test-${process.pid}`;
  const receive = await startReceiver(t, path);
  await systemdNotifier({ NOTIFY_SOCKET: path }).notify("STOPPING=1");
  assert.deepEqual(await receive(), { pid: process.pid, text: "STOPPING=1" });
});

test("without systemd nothing is sent and nothing fails", async () => {
  assert.equal(await systemdNotifier({}).notify("READY=1"), false);
});

test("a missing socket is an error that names it", { skip }, async () => {
  await assert.rejects(
    systemdNotifier({ NOTIFY_SOCKET: "/nowhere/notify", PATH: "" }).notify("READY=1"),
    /\/nowhere\/notify: ENOENT/,
  );
});

test("a line of the log becomes a journal entry", { skip }, async (t) => {
  const path = join(tempDir(t), "journal");
  const receive = await startReceiver(t, path);
  const sink = await openJournalSink("etcd", path);
  t.after(() => sink.close());
  sink.write('{"level":"error"}\n', "error");
  assert.match((await receive()).text, /^PRIORITY=3\nSYSLOG_IDENTIFIER=etcd\nMESSAGE\n/);
});

test("a machine without a journal is reported in etcd's words", {
  skip: existsSync(JOURNAL_SOCKET) ? "there is a journal" : false,
}, async () => {
  await assert.rejects(openJournalSink("etcd"), {
    message: "can't find journal (dial unixgram /run/systemd/journal/socket: connect: no such file or directory)",
  });
});
