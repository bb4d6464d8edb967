import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { pathToFileURL } from "node:url";
import { encodeLossless } from "../../src/base/lossless-text.ts";
import { trueArguments, trueEnvironment } from "../../src/ctl/arguments.ts";
import { KVService } from "../../src/proto/etcdserverpb.ts";
import { ourEtcd, repositoryRoot } from "../harness/programs.ts";
import { type Server, startServer } from "../harness/server.ts";

const none = () => {
  throw new Error("no such file");
};
const records =
  (...texts: (string | Buffer)[]) =>
  () =>
    Buffer.concat(texts.flatMap((text) => [Buffer.from(text), Buffer.of(0)]));
const A_FF_B = Buffer.from([0x61, 0xff, 0x62]);

test("arguments that are UTF-8 are taken as they are", () => {
  const args = ["put", "grün", ""];
  assert.equal(trueArguments(args, none), args);
});

test("arguments that are not UTF-8 have the kernel's bytes", () => {
  const args = ["put", A_FF_B.toString(), "", "\ufffd"];
  const whole = trueArguments(args, records("node", "--flag", "etcdctl", "put", A_FF_B, "", "\ufffd"));
  assert.deepEqual(whole.map(encodeLossless), [Buffer.from("put"), A_FF_B, Buffer.alloc(0), Buffer.from("\ufffd")]);
});

test("arguments that are not UTF-8 are refused where their bytes are not available", () => {
  const args = ["put", A_FF_B.toString()];
  const refused = { name: "ExitError", code: 128, message: /^argument 2 is not UTF-8, and its bytes cannot be had/ };
  assert.throws(() => trueArguments(args, none), refused);
  assert.throws(() => trueArguments(args, records("node", "other", A_FF_B)), refused);
  assert.throws(() => trueArguments(args, records(A_FF_B)), refused);
});

test("variables that are not UTF-8 have the kernel's bytes", () => {
  const env = { A: "1", ETCDCTL_WATCH_KEY: A_FF_B.toString() };
  const record = Buffer.concat([Buffer.from("ETCDCTL_WATCH_KEY="), A_FF_B]);
  const whole = trueEnvironment(env, records("A=1", record));
  assert.deepEqual(encodeLossless(whole["ETCDCTL_WATCH_KEY"]!), A_FF_B);
  assert.equal(whole["A"], "1");
  assert.equal(trueEnvironment(env, none)["ETCDCTL_WATCH_KEY"], env.ETCDCTL_WATCH_KEY);
});

const skip = process.platform === "linux" ? false : "/proc is Linux's";
let server: Server;
before(async () => {
  server = await startServer(ourEtcd());
});
after(() => server.close());

/** Runs etcdctl as a process with `printf`'s output for the last argument. */
function withBytes(args: readonly string[], printed: string) {
  const program = pathToFileURL(join(repositoryRoot, "src", "programs", "etcdctl.ts")).href;
  const code = `import { main } from ${JSON.stringify(program)}; await main(process.argv.slice(1), process.env);`;
  const node = [process.execPath, "--import", "tsx", "--input-type=module", "-e", code, "--"];
  const shell = ["-c", `exec "$@" "$(printf '${printed}')"`, "sh", ...node, "--endpoints", server.endpoint, ...args];
  return new Promise<{ readonly code: number; readonly stdout: Buffer; readonly stderr: string }>((resolve) => {
    execFile("sh", shell, { cwd: repositoryRoot, encoding: "buffer" }, (error, stdout, stderr) => {
      resolve({ code: error === null ? 0 : Number(error.code), stdout, stderr: stderr.toString() });
    });
  });
}

test("a key of any bytes is written, read and deleted under exactly these bytes", { skip }, async () => {
  assert.deepEqual(await withBytes(["put", "--prev-kv", "--", "plain"], "v\\377"), {
    code: 0,
    stdout: Buffer.from("OK\n"),
    stderr: "",
  });
  await server.client.unary(KVService.Put, { key: A_FF_B, value: Buffer.from([0xfe]) });
  const bytes = Buffer.concat([A_FF_B, Buffer.from("\n"), Buffer.of(0xfe), Buffer.from("\n")]);
  assert.deepEqual((await withBytes(["get"], "a\\377b")).stdout, bytes);
  assert.deepEqual((await withBytes(["get", "--prefix"], "a\\377")).stdout, bytes);
  assert.equal((await withBytes(["del"], "a\\377b")).stdout.toString(), "1\n");
  const { kvs } = await server.client.unary(KVService.Range, { key: Buffer.from("plain") });
  assert.deepEqual(kvs[0]?.value, Buffer.from([0x76, 0xff]));
});

test("a name that must be text is refused when it is not", { skip }, async () => {
  const user = await withBytes(["user", "add", "--no-password"], "u\\377");
  assert.equal(user.code, 1);
  assert.match(user.stderr, /string field contains invalid UTF-8\n$/);
  assert.match((await withBytes(["snapshot", "save"], "f\\377")).stderr, /the name of the file is not UTF-8\n$/);
  assert.match((await withBytes(["lock", "l", "--", "echo"], "x\\377")).stderr, /cannot be handed on to a program\n$/);
});
