import assert from "node:assert/strict";
import { constants } from "node:buffer";
import { test } from "node:test";
import protobuf from "protobufjs";
import { fieldsPrinter } from "../../src/ctl/print/fields.ts";
import type { Shape } from "../../src/ctl/print/go-json.ts";
import { object, pieces, string } from "../../src/ctl/print/go-json.ts";
import { jsonPrinter } from "../../src/ctl/print/json.ts";
import { statusRows } from "../../src/ctl/print/rows.ts";
import * as shapes from "../../src/ctl/print/shapes.ts";
import { gathered } from "../../src/ctl/print/shown.ts";
import { simplePrinter } from "../../src/ctl/print/simple.ts";
import { tablePrinter } from "../../src/ctl/print/table.ts";
import * as pb from "../../src/proto/etcdserverpb.ts";
import { KeyValue } from "../../src/proto/mvccpb.ts";
import { protoSources } from "../../src/proto/sources.ts";

const SHAPES: Readonly<Record<string, Shape>> = {
  RangeResponse: shapes.RANGE,
  PutResponse: shapes.PUT,
  DeleteRangeResponse: shapes.DELETE_RANGE,
  MemberListResponse: shapes.MEMBERS,
  MemberAddResponse: shapes.MEMBER_ADD,
  StatusResponse: shapes.STATUS,
  HashKVResponse: shapes.HASH_KV,
  DowngradeResponse: shapes.DOWNGRADE,
  AlarmResponse: shapes.ALARM,
  AuthRoleGetResponse: shapes.ROLE_GET,
  AuthRoleListResponse: shapes.ROLE_LIST,
  AuthUserGetResponse: shapes.USER_GET,
  AuthUserListResponse: shapes.USER_LIST,
  AuthStatusResponse: shapes.AUTH_STATUS,
};

test("JSON has every field of the messages, with its name and in its order", () => {
  const root = new protobuf.Root();
  for (const [path, text] of Object.entries(protoSources)) {
    if (/^(?:etcdserverpb\/rpc|mvccpb|authpb)/.test(path)) protobuf.parse(text, root, { keepCase: true });
  }
  const compare = (type: protobuf.Type, shape: Shape) => {
    assert.deepEqual(
      Object.keys(shape),
      type.fieldsArray.map(({ name }) => name),
      type.name,
    );
    for (const field of type.fieldsArray) {
      const how = shape[field.name];
      const inner = field.resolve().resolvedType;
      assert.equal(Array.isArray(how), inner instanceof protobuf.Type, `${type.name}.${field.name}`);
      if (inner instanceof protobuf.Type && Array.isArray(how)) compare(inner, how[1] as Shape);
    }
  };
  for (const [name, shape] of Object.entries(SHAPES)) compare(root.lookupType(`etcdserverpb.${name}`), shape);
  compare(root.lookupType("mvccpb.Event"), shapes.EVENT);
});

test("the properties named in shapes exist", () => {
  const header = pb.ResponseHeader.create({ clusterId: 1n, memberId: 2n, revision: 3, raftTerm: 4 });
  const member = { id: 5n, name: "n", peerUrls: ["p"], clientUrls: ["c"], isLearner: true };
  assert.equal(
    object(pb.MemberListResponse.create({ header, members: [member] }), shapes.MEMBERS),
    '{"header":{"cluster_id":1,"member_id":2,"revision":3,"raft_term":4},' +
      '"members":[{"ID":5,"name":"n","peerURLs":["p"],"clientURLs":["c"],"isLearner":true}]}',
  );
  const alarms = [pb.AlarmMember.create({ memberId: 2n ** 64n - 1n, alarm: 1 })];
  const alarm = '{"alarms":[{"memberID":18446744073709551615,"alarm":1}]}';
  assert.equal(object(pb.AlarmResponse.create({ alarms }), shapes.ALARM), alarm);
});

test("JSON in pieces is the JSON of the whole", () => {
  const kv = (key: string) => KeyValue.create({ key: Buffer.from(key), value: Buffer.from([0xff]), modRevision: 3 });
  const header = pb.ResponseHeader.create({ revision: 7 });
  for (const kvs of [[], [kv("a")], [kv("a"), kv("b")]]) {
    for (const more of [false, true]) {
      for (const maybe of [undefined, header]) {
        const range = pb.RangeResponse.create({ header: maybe, kvs, more, count: kvs.length });
        assert.equal([...pieces(range, shapes.RANGE)].join(""), object(range, shapes.RANGE));
        const deleted = pb.DeleteRangeResponse.create({ header: maybe, prevKvs: kvs });
        assert.equal([...pieces(deleted, shapes.DELETE_RANGE)].join(""), object(deleted, shapes.DELETE_RANGE));
      }
    }
  }
  assert.equal([...pieces(undefined, shapes.RANGE)].join(""), "null");
});

test("a result longer than the longest string is printed", () => {
  const value = Buffer.alloc(2 ** 24, "v");
  const response = pb.RangeResponse.create({ kvs: Array.from({ length: 25 }, () => KeyValue.create({ value })) });
  let length = 0;
  for (const piece of gathered(jsonPrinter(false).print("get", response)!)) length += piece.length;
  assert.ok(length > constants.MAX_STRING_LENGTH);
});

test("a large value is quoted", () => {
  const kv = KeyValue.create({ value: Buffer.alloc(2 ** 24, "v") });
  const quoted = Buffer.concat([
    ...gathered(fieldsPrinter(false).print("get", pb.RangeResponse.create({ kvs: [kv] }))!),
  ]);
  assert.ok(quoted.includes(`"Value" : "${"v".repeat(2 ** 24)}"\n`));
});

test("small pieces are joined, and keep their order", () => {
  const parts = Array.from({ length: 50_000 }, (_, i) => (i % 10_000 === 0 ? Buffer.alloc(100_000, "x") : `${i}\n`));
  const written = [...gathered(parts)];
  assert.deepEqual(Buffer.concat(written), Buffer.concat(parts.map((part) => Buffer.from(part))));
  assert.ok(written.length < 20);
});

test("bytes in hexadecimal are each a backslash, an x and two digits", () => {
  const kv = KeyValue.create({ key: Buffer.from([0, 0x0f, 0xf0, 0xff]), value: Buffer.alloc(0) });
  const output = simplePrinter({ hex: true, valueOnly: false }).print("get", pb.RangeResponse.create({ kvs: [kv] }));
  assert.equal(Buffer.concat([...gathered(output!)]).toString(), "\\x00\\x0f\\xf0\\xff\n\n");
});

test("text in JSON is escaped as Go escapes it", () => {
  assert.equal(
    string('<a href="x">&\u2028\ud800\n\u0001'),
    '"\\u003ca href=\\"x\\"\\u003e\\u0026\\u2028\ufffd\\n\\u0001"',
  );
});

test("a status row shows which part of the database is not in use", () => {
  const response = pb.StatusResponse.create({ dbSize: 24_576, dbSizeInUse: 16_384, leader: 1n });
  const row = statusRows([{ endpoint: "e", response }])[0]!;
  assert.deepEqual(row.slice(4, 7), ["25 kB", "16 kB", "34%"]);
  assert.equal(row[8], "false");
});

test("tables have etcdctl's headings, also without rows", () => {
  const headingsOf = (kind: "health" | "status" | "hashKv"): string[] => {
    const [, head] = String(tablePrinter.print(kind, [])).split("\n");
    return head!.split("│").map((cell) => cell.trim());
  };
  assert.deepEqual(headingsOf("health"), ["", "ENDPOINT", "HEALTH", "TOOK", "ERROR", ""]);
  assert.deepEqual(headingsOf("hashKv"), ["", "ENDPOINT", "HASH", "HASH REVISION", ""]);
  const status =
    "ENDPOINT, ID, VERSION, STORAGE VERSION, DB SIZE, IN USE, PERCENTAGE NOT IN USE, QUOTA, IS LEADER, IS LEARNER, " +
    "RAFT TERM, RAFT INDEX, RAFT APPLIED INDEX, ERRORS, DOWNGRADE TARGET VERSION, DOWNGRADE ENABLED";
  assert.equal(headingsOf("status").slice(1, -1).join(", "), status);
});
