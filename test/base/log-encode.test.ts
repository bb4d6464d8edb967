import assert from "node:assert/strict";
import { test } from "node:test";
import { encodeRecord, type LogRecord, timestamp } from "../../src/base/log-encode.ts";

const record = (fields?: Record<string, unknown>, extra: Partial<LogRecord> = {}): LogRecord => ({
  level: "info",
  wallMs: Date.UTC(2026, 0, 2, 15, 4, 5, 123) + 0.456,
  name: "",
  caller: "",
  message: "hello",
  fields,
  ...extra,
});

function withZone<T>(zone: string, body: () => T): T {
  const before = process.env["TZ"];
  process.env["TZ"] = zone;
  try {
    return body();
  } finally {
    if (before === undefined) delete process.env["TZ"];
    else process.env["TZ"] = before;
  }
}

test("a JSON line has zap's keys in zap's order", () => {
  withZone("UTC", () => {
    const line = encodeRecord(record({ n: 1, s: 'a"b', list: ["x", 2] }, { name: "raft", caller: "a/b" }), "json");
    assert.equal(
      line,
      '{"level":"info","ts":"2026-01-02T15:04:05.123456Z","logger":"raft","caller":"a/b","msg":"hello","n":1,"s":"a\\"b","list":["x",2]}\n',
    );
  });
});

test("a console line has zap's columns and spacing", () => {
  withZone("UTC", () => {
    assert.equal(
      encodeRecord(record({ args: ["a", "b"], n: { x: true } }, { caller: "etcdmain/etcd" }), "console"),
      '2026-01-02T15:04:05.123456Z\tinfo\tetcdmain/etcd\thello\t{"args": ["a", "b"], "n": {"x": true}}\n',
    );
    assert.equal(encodeRecord(record(), "console"), "2026-01-02T15:04:05.123456Z\tinfo\thello\n");
  });
});

test("the time is local with its offset, and Z for UTC", () => {
  const wallMs = Date.UTC(2026, 6, 1, 0, 0, 1, 5);
  // Node applies a new TZ at once; the second is different so that no earlier text is reused.
  assert.equal(
    withZone("UTC", () => timestamp(wallMs)),
    "2026-07-01T00:00:01.005000Z",
  );
  assert.equal(
    withZone("Asia/Shanghai", () => timestamp(wallMs + 1000)),
    "2026-07-01T08:00:02.005000+0800",
  );
  assert.equal(
    withZone("America/St_Johns", () => timestamp(wallMs + 2000)),
    "2026-06-30T21:30:03.005000-0230",
  );
});

test("values of every kind are written as zap writes them", () => {
  const fields = {
    error: new Error("broken"),
    absent: undefined,
    nothing: null,
    id: 18446744073709551615n,
    bytes: Buffer.from("hi"),
    nan: Number.NaN,
    inf: Number.POSITIVE_INFINITY,
    map: new Map([["k", 1]]),
    control: "a\nb\u0001",
  };
  const {
    level: _,
    ts: __,
    msg: ___,
    ...rest
  } = JSON.parse(encodeRecord(record(fields), "json").replace("18446744073709551615", '"id"'));
  assert.deepEqual(rest, {
    error: "broken",
    nothing: null,
    id: "id",
    bytes: "aGk=",
    nan: "NaN",
    inf: "+Inf",
    map: { k: 1 },
    control: "a\nb\u0001",
  });
});

test("a value that contains itself is cut off with a mark", () => {
  const loop: Record<string, unknown> = {};
  loop["loop"] = loop;
  assert.match(encodeRecord(record(loop), "json"), /\{…\}/);
});
