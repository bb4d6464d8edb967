import assert from "node:assert/strict";
import { test } from "node:test";
import protobuf from "protobufjs";
import type { Shape } from "../../src/ctl/print/go-json.ts";
import { object, string } from "../../src/ctl/print/go-json.ts";
import { statusRows } from "../../src/ctl/print/rows.ts";
import * as shapes from "../../src/ctl/print/shapes.ts";
import * as pb from "../../src/proto/etcdserverpb.ts";
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

test("JSON has every field of the messages, under its name and in its order", () => {
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

test("the properties that shapes name exist", () => {
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

test("text in JSON is escaped as Go escapes it", () => {
  assert.equal(
    string('<a href="x">&\u2028\ud800\n\u0001'),
    '"\\u003ca href=\\"x\\"\\u003e\\u0026\\u2028\ufffd\\n\\u0001"',
  );
});

test("a status row says what part of the database is not in use", () => {
  const response = pb.StatusResponse.create({ dbSize: 24_576, dbSizeInUse: 16_384, leader: 1n });
  const row = statusRows([{ endpoint: "e", response }])[0]!;
  assert.deepEqual(row.slice(4, 7), ["25 kB", "16 kB", "34%"]);
  assert.equal(row[8], "false");
});
