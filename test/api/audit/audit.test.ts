import assert from "node:assert/strict";
import { appendFileSync, readdirSync, readFileSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import type { AuditOptions } from "../../../src/api/audit/audit-log.ts";
import { AuditFile } from "../../../src/api/audit/file.ts";
import { subjectOf } from "../../../src/api/audit/subject.ts";
import { AuditError, verifyAudit } from "../../../src/api/audit/verify.ts";
import { systemClock } from "../../../src/base/clock.ts";
import { Client } from "../../../src/client/client.ts";
import { main } from "../../../src/doctor/audit.ts";
import { DeleteRangeRequest, KVService, PutRequest } from "../../../src/proto/etcdserverpb.ts";
import { startInProcess, tempDir } from "../../harness/in-process.ts";
import { MemoryLogger } from "../../harness/memory-logger.ts";
import { waitFor } from "../../harness/wait.ts";

function dirOf(t: TestContext): string {
  const dir = tempDir();
  t.after(() => dir.remove());
  return dir.path;
}

const OPTIONS: Omit<AuditOptions, "path"> = { rotateSizeMb: 100, rotateKeep: 10, methods: [], users: [], prefixes: [] };

async function audited(t: TestContext, options: Partial<AuditOptions>) {
  const path = join(dirOf(t), "audit.log");
  const server = await startInProcess({ etcd: { audit: { ...OPTIONS, ...options, path } } });
  const client = new Client({ endpoints: server.url });
  let isClosed = false;
  const close = async (): Promise<void> => {
    if (isClosed) return;
    isClosed = true;
    client.close();
    await server.close();
  };
  t.after(close);
  const records = (): Record<string, unknown>[] =>
    readFileSync(path, "utf8")
      .split("\n")
      .filter((line) => line !== "")
      .map((line) => JSON.parse(line) as Record<string, unknown>)
      .filter((record) => "method" in record);
  return { path, client, server, close, records };
}

test("each call is recorded with who, what and how it ended, and never with a value", async (t) => {
  const { path, client, close, records } = await audited(t, {});
  const { revision } = await client.put("a", "a secret value");
  await client.get("a");
  await assert.rejects(client.put("a", "x", { lease: 99n }), /lease not found/);
  const watch = client.watch({ prefix: "w/" });
  await watch.ready;
  watch.close();
  await client.txn({ success: [] });
  await close();
  const all = records();
  const put = all.find(({ method }) => method === "Put")!;
  assert.deepEqual([put["key"], put["revision"], put["outcome"], put["user"]], ["a", revision, "OK", ""]);
  assert.match(String(put["address"]), /^127\.0\.0\.1$/);
  assert.match(String(put["time"]), /^\d{4}-.*Z$/);
  assert.equal(all.filter(({ method, outcome }) => method === "Put" && outcome === "NotFound").length, 1);
  const created = all.find(({ outcome }) => outcome === "CREATED")!;
  assert.deepEqual([created["method"], created["key"], created["rangeEnd"]], ["Watch", "w/", "w0"]);
  assert.ok(all.some(({ method }) => method === "Range"));
  assert.ok(!readFileSync(path, "utf8").includes("secret"));
  const { records: count, unsealed } = await verifyAudit([path]);
  assert.deepEqual([count, unsealed], [all.length, 0]);
});

test("methods and prefixes choose what is recorded", async (t) => {
  const { client, close, records } = await audited(t, { methods: ["-Range"], prefixes: ["a/"] });
  await client.put("a/1", "");
  await client.put("b/1", "");
  await client.get("a/1");
  await client.leases.grant(100, { keepAlive: false });
  await close();
  assert.deepEqual(
    records().map(({ method, key }) => [method, key]),
    [
      ["Put", "a/1"],
      ["LeaseGrant", undefined],
    ],
  );
});

test("keys that are not text are in base64, and no key is mistaken for another", () => {
  const fields = (path: string, message: Uint8Array): Record<string, unknown> =>
    JSON.parse(`{"x":0${subjectOf(path, message).fields}}`) as Record<string, unknown>;
  const put = (key: Uint8Array): Record<string, unknown> =>
    fields(KVService.Put.path, PutRequest.encode(PutRequest.create({ key, value: Buffer.from("v"), lease: 5n })));
  assert.equal(put(Buffer.from('q"\\\n'))["key"], 'q"\\\n');
  assert.equal(put(Buffer.from("größer"))["key"], "größer");
  assert.equal(put(Buffer.from([0xff, 0]))["keyBase64"], "/wA=");
  const long = put(Buffer.alloc(10_000, "k"));
  assert.deepEqual([String(long["key"]).length, long["keyBytes"]], [4096, 10_000]);
  const twice = Buffer.concat([
    PutRequest.encode(PutRequest.create({ key: Buffer.from("shown"), value: Buffer.from("v") })),
    PutRequest.encode(PutRequest.create({ key: Buffer.from("meant") })),
  ]);
  assert.equal(fields(KVService.Put.path, twice)["key"], "meant");
  const range = DeleteRangeRequest.encode(
    DeleteRangeRequest.create({ key: Buffer.from("a"), rangeEnd: Buffer.from([0]) }),
  );
  assert.deepEqual(fields(KVService.DeleteRange.path, range), { x: 0, key: "a", rangeEnd: "\0" });
  assert.equal(fields(KVService.Put.path, Buffer.from([0x0a, 0x7f]))["malformed"], true);
});

async function written(path: string, blocks: number, bytesMax = 1 << 20): Promise<void> {
  const logger = new MemoryLogger();
  const file = new AuditFile({ path, bytesMax, keep: 0, clock: systemClock, logger });
  for (let i = 0; i < blocks; i++) {
    const { records } = file.seal;
    assert.ok(file.append(Buffer.from(`{"method":"Put","n":${i}}\n`.repeat(10)), 10));
    await waitFor("the block is written", () => file.seal.records > records);
  }
  await file.close();
}

const broken = (paths: readonly string[], what: RegExp): Promise<void> =>
  assert.rejects(verifyAudit(paths), (error) => error instanceof AuditError && what.test(error.message));

test("a line that was changed, left out or put in breaks the chain", async (t) => {
  const path = join(dirOf(t), "audit.log");
  await written(path, 3);
  assert.equal((await verifyAudit([path])).records, 30);
  const lines = readFileSync(path, "utf8").split("\n");
  const changed = (edit: (lines: string[]) => void): void => {
    const copy = [...lines];
    edit(copy);
    writeFileSync(path, copy.join("\n"));
  };
  changed((all) => (all[5] = all[5]!.replace("0", "1")));
  await broken([path], /audit\.log:12: the seal does not fit/);
  changed((all) => all.splice(15, 1));
  await broken([path], /they were changed/);
  changed((all) => all.splice(15, 0, all[15]!));
  await broken([path], /they were changed/);
  changed((all) => all.splice(12, 11));
  await broken([path], /they were changed/);
  changed((all) => all.splice(0, 1));
  await broken([path], /not the beginning/);
});

test("the chain goes on over files and restarts, and a missing file is noticed", async (t) => {
  const dir = dirOf(t);
  const path = join(dir, "audit.log");
  await written(path, 3, 200);
  await written(path, 2, 200);
  const files = readdirSync(dir)
    .map((name) => join(dir, name))
    .sort((a, b) => (a === path ? 1 : b === path ? -1 : a < b ? -1 : 1));
  assert.ok(files.length >= 4);
  const { records, isContinued } = await verifyAudit(files);
  assert.deepEqual([records, isContinued], [50, false]);
  await broken([files[0]!, ...files.slice(2)], /it does not continue the file before/);
  assert.equal((await verifyAudit(files.slice(1))).isContinued, true);
});

test("what a crash left behind the last seal is sealed by the next start", async (t) => {
  const path = join(dirOf(t), "audit.log");
  await written(path, 2);
  appendFileSync(path, '{"method":"Put"}\n{"method":"Pu');
  assert.equal((await verifyAudit([path])).unsealed, 2);
  await written(path, 1);
  const { records, unsealed } = await verifyAudit([path]);
  assert.deepEqual([records, unsealed], [32, 0]);
});

test("the command says that a log is whole, or what is wrong, and knows a seal that is no longer there", async (t) => {
  const path = join(dirOf(t), "audit.log");
  await written(path, 2);
  const run = async (...args: string[]): Promise<{ code: number; out: string; err: string }> => {
    let [out, err] = ["", ""];
    const code = await main(args, { out: (text) => void (out += text), err: (text) => void (err += text) });
    return { code, out, err };
  };
  const whole = await run("verify", path);
  assert.equal(whole.code, 0);
  assert.match(whole.out, /1 file, 20 records, nothing was changed/);
  const [seal] = /[0-9a-f]{64}/.exec(whole.out)!;
  assert.equal((await run("verify", path, "--seal", seal)).code, 0);
  const lines = readFileSync(path, "utf8").split("\n");
  const [head, , ...rest] = lines;
  truncateSync(path, lines.slice(0, 12).join("\n").length + 1);
  const cut = await run("verify", path, "--seal", seal);
  assert.equal(cut.code, 1);
  assert.match(cut.err, /was cut off or written again/);
  writeFileSync(path, [head, ...rest].join("\n"));
  assert.equal((await run("verify", path)).code, 1);
  assert.equal((await run("verify")).code, 2);
  assert.match((await run("verify", `${path}.none`)).err, /no such file/);
});
