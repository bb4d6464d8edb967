import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { encodeJson } from "../../../src/api/gateway/encode.ts";
import { JsonPieces } from "../../../src/api/gateway/pieces.ts";
import { type MessageShape, Schema } from "../../../src/api/gateway/schema.ts";
import type { MethodType } from "../../../src/base/protobuf.ts";
import { ProtobufError } from "../../../src/base/protobuf.ts";
import * as etcdserverpb from "../../../src/proto/etcdserverpb.ts";
import {
  AuthUserListResponse,
  RangeResponse,
  ResponseOp,
  SnapshotResponse,
  TxnResponse,
} from "../../../src/proto/etcdserverpb.ts";
import { KeyValue } from "../../../src/proto/mvccpb.ts";
import { ElectionService } from "../../../src/proto/v3electionpb.ts";
import { LockService } from "../../../src/proto/v3lockpb.ts";
import { seeded } from "../../harness/random.ts";

const schema = new Schema();

function inPieces(shape: MessageShape, bytes: Uint8Array, nextLength: () => number): string {
  const pieces = new JsonPieces(shape, "stream");
  let text = "";
  for (let at = 0; at < bytes.length; ) {
    const end = Math.min(bytes.length, at + nextLength());
    text += pieces.push(bytes.subarray(at, end));
    at = end;
  }
  return text + pieces.finish();
}

const keyValue = (key: string, valueBytes: number): KeyValue =>
  KeyValue.create({
    key: Buffer.from(key),
    value: Buffer.alloc(valueBytes, key),
    createRevision: 5,
    modRevision: 2 ** 40,
    lease: 0x7fffffffffffffffn,
    version: 1,
  });

const samples: readonly (readonly [string, Uint8Array])[] = [
  ["etcdserverpb.RangeResponse", RangeResponse.encode(RangeResponse.create({}))],
  [
    "etcdserverpb.RangeResponse",
    RangeResponse.encode(
      RangeResponse.create({
        header: { clusterId: 2n ** 64n - 1n, memberId: 3n, revision: 9, raftTerm: 2 },
        kvs: [0, 1, 2, 3, 1000, 16_384, 20_000, 70_001, 5].map((bytes, i) => keyValue(`key${i}`, bytes)),
        more: true,
        count: 9,
      }),
    ),
  ],
  [
    "etcdserverpb.TxnResponse",
    TxnResponse.encode(
      TxnResponse.create({
        succeeded: true,
        responses: [
          RangeResponse.create({ kvs: [keyValue("a", 30_000), keyValue("b", 1)], count: 2 }),
          RangeResponse.create({}),
          RangeResponse.create({ kvs: [keyValue("c", 50)] }),
        ].map((responseRange) => ResponseOp.create({ responseRange })),
      }),
    ),
  ],
  [
    "etcdserverpb.SnapshotResponse",
    SnapshotResponse.encode(SnapshotResponse.create({ blob: Buffer.alloc(40_000, 7) })),
  ],
  [
    "etcdserverpb.AuthUserListResponse",
    AuthUserListResponse.encode(AuthUserListResponse.create({ users: ["", "<é>\u2028😀".repeat(3000), "b"] })),
  ],
];

describe("messages that become JSON in pieces", () => {
  test("are the same JSON wherever they are split", () => {
    const random = seeded(7);
    for (const [name, bytes] of samples) {
      const shape = schema.message(name);
      const whole = encodeJson(shape, bytes, "stream");
      JSON.parse(whole);
      for (const most of [1, 2, 7, 100, 5000, 65_536]) {
        if (most < 7 && bytes.length > 50_000) continue;
        const text = inPieces(shape, bytes, () => 1 + random.below(most));
        assert.equal(text, whole, `${name} in pieces of up to ${most}`);
      }
    }
  });

  test("hold back only what a piece does not complete", () => {
    const [, bytes] = samples[1]!;
    const pieces = new JsonPieces(schema.message("etcdserverpb.RangeResponse"), "single");
    let written = 0;
    for (let at = 0; at < bytes.length; at += 1000) {
      written += pieces.push(bytes.subarray(at, at + 1000)).length;
      assert.ok(written > at - 17_000, `${written} of ${at}`);
    }
  });

  test("are refused when they end early, overrun, or have another order than the fields of the .proto file", () => {
    const shape = schema.message("etcdserverpb.RangeResponse");
    const [, bytes] = samples[1]!;
    assert.throws(() => inPieces(shape, bytes.subarray(0, -1), () => 100), ProtobufError);
    const kv = Buffer.from([0x12, 2, 0x0a, 0]);
    const count = Buffer.from([0x20, 1]);
    assert.equal(
      inPieces(shape, Buffer.concat([kv, kv, count]), () => 1),
      '{"kvs":[{},{}],"count":"1"}',
    );
    assert.throws(() => inPieces(shape, Buffer.concat([count, kv]), () => 1), ProtobufError);
    assert.equal(encodeJson(shape, Buffer.concat([count, kv]), "single"), '{"kvs":[{}],"count":"1"}');
  });

  test("exist for every response: each has its fields in the order of their numbers", () => {
    const seen = new Set<MessageShape>();
    const check = (shape: MessageShape): void => {
      if (seen.has(shape)) return;
      seen.add(shape);
      const numbers = shape.fields.map(({ number }) => number);
      assert.deepEqual(
        numbers,
        numbers.toSorted((a, b) => a - b),
        shape.name,
      );
      for (const { message } of shape.fields) if (message !== undefined) check(message);
    };
    const services = Object.entries(etcdserverpb).filter(([name]) => name.endsWith("Service"));
    for (const service of [...services.map(([, value]) => value), LockService, ElectionService]) {
      for (const method of Object.values(service) as MethodType[]) check(schema.message(method.response.typeName));
    }
    assert.ok(seen.size > 50);
  });
});
