import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { NESTING_DEPTH_MAX, ProtobufError, Reader, Writer } from "../../src/base/protobuf.ts";
import {
  Compare,
  PutRequest,
  RangeRequest,
  RequestOp,
  ResponseHeader,
  TxnRequest,
  WatchCreateRequest,
} from "../../src/proto/etcdserverpb.ts";
import { KeyValue } from "../../src/proto/mvccpb.ts";
import { ConfState, Message } from "../../src/proto/raftpb.ts";
import { rounds } from "../harness/fast.ts";
import { type SeededRandom, seeded } from "../harness/random.ts";
import { comparable, expectedOf, pairs, randomFields } from "./protobuf-schema.ts";

const ROUNDS = 60;
const FUZZ_ROUNDS = Number(process.env["KVORUM_FUZZ_ROUNDS"] ?? rounds(300));

const bytes = (...values: number[]): Buffer => Buffer.from(values);
const hex = (text: string): Buffer => Buffer.from(text.replaceAll(" ", ""), "hex");

describe("every generated message agrees with protobufjs", () => {
  for (const [i, pair] of pairs.entries()) {
    test(pair.name, () => {
      const random = seeded(i + 1);
      for (let round = 0; round < ROUNDS; round++) {
        const fields = randomFields(pair, random);
        const wire = Buffer.from(pair.reference.encode(fields).finish());
        const decoded = pair.ours.decode(wire);
        assert.deepEqual(comparable(decoded), expectedOf(pair, fields));
        assert.equal(pair.ours.encode(decoded).toString("hex"), wire.toString("hex"));
      }
    });
  }

  test("a message without content has every field at its default", () => {
    for (const pair of pairs) assert.deepEqual(pair.ours.decode(bytes()), pair.ours.create(), pair.name);
  });
});

describe("integers", () => {
  const roundTrip = (value: number) => KeyValue.decode(KeyValue.encode(KeyValue.create({ version: value }))).version;
  const wide = [2 ** 53, 2 ** 53 + 2, 2 ** 60, 2 ** 62, 2 ** 63 - 1024];

  test("below 2^53 keep their value, negative or not", () => {
    for (const size of [1, 127, 128, 2 ** 31 - 1, 2 ** 31, 2 ** 32 - 1, 2 ** 32, 2 ** 32 + 1, 2 ** 53 - 1]) {
      assert.equal(roundTrip(size), size);
      assert.equal(roundTrip(-size), -size);
    }
  });

  test("above 2^53 keep their order and their sign", () => {
    const values = [...wide.map((value) => -value).reverse(), 0, ...wide].map(roundTrip);
    for (let i = 1; i < values.length; i++) assert.ok(values[i]! > values[i - 1]!, `${values[i]} > ${values[i - 1]}`);
  });

  test("the largest values, which a number rounds up, are written as the largest again", () => {
    const largestSigned = hex("18 ffffffffffffffff7f");
    const { limit } = RangeRequest.decode(largestSigned);
    assert.equal(limit, 2 ** 63);
    assert.deepEqual(RangeRequest.encode(RangeRequest.create({ limit })), largestSigned);
    assert.deepEqual(
      RangeRequest.encode(RangeRequest.decode(hex("18 80808080808080808001"))),
      hex("18 80808080808080808001"),
    );
    const largestUnsigned = hex("20 ffffffffffffffffff01");
    const { raftTerm } = ResponseHeader.decode(largestUnsigned);
    assert.equal(raftTerm, 2 ** 64);
    assert.deepEqual(ResponseHeader.encode(ResponseHeader.create({ raftTerm })), largestUnsigned);
  });

  test("ids keep all 64 bits", () => {
    for (const id of [0n, 1n, 2n ** 32n, 2n ** 53n + 1n, 2n ** 63n - 1n, 2n ** 63n, 2n ** 64n - 1n]) {
      const header = ResponseHeader.create({ memberId: id });
      assert.equal(ResponseHeader.decode(ResponseHeader.encode(header)).memberId, id);
      const lease = BigInt.asIntN(64, id);
      assert.equal(PutRequest.decode(PutRequest.encode(PutRequest.create({ lease }))).lease, lease);
    }
  });

  test("may be written longer than necessary", () => {
    assert.equal(RangeRequest.decode(hex("18 8500")).limit, 5);
    assert.equal(RangeRequest.decode(hex("18 85808080808080808000")).limit, 5);
    assert.equal(RangeRequest.decode(hex("9880808000 05")).limit, 5, "the tag too");
    assert.deepEqual(RangeRequest.decode(hex("0a 818000 61")).key, Buffer.from("a"), "and the length");
  });

  test("an int32 on ten bytes loses its upper half", () => {
    assert.equal(Compare.decode(hex("08 ffffffffffffffffff01")).result, -1);
  });

  test("a bool is true for any value but 0", () => {
    assert.equal(PutRequest.decode(hex("20 02")).prevKv, true);
    assert.equal(PutRequest.decode(hex("20 80808080808001")).prevKv, true);
    assert.equal(PutRequest.decode(hex("20 8000")).prevKv, false);
  });
});

describe("fields", () => {
  test("that are unknown are skipped, whatever their wire type", () => {
    const unknown = {
      "varint on two bytes": hex("f83f ac02"),
      "64 bits": hex("f93f 0102030405060708"),
      "short bytes": hex("fa3f 03 010203"),
      "bytes whose length takes two bytes": Buffer.concat([hex("fa3f ac02"), Buffer.alloc(300, 0x0a)]),
      "32 bits": hex("fd3f 01020304"),
      "group in a group": hex("fb3f 0801 13 1801 14 1202aabb fc3f"),
    };
    for (const [name, field] of Object.entries(unknown)) {
      const { key, limit } = RangeRequest.decode(Buffer.concat([hex("0a 01 61"), field, hex("18 05")]));
      assert.deepEqual([Buffer.from(key).toString(), limit], ["a", 5], name);
    }
  });

  test("of a known number with another wire type are skipped", () => {
    const { key, limit } = RangeRequest.decode(hex("0807 0a0161 1a020909 1805"));
    assert.deepEqual([Buffer.from(key).toString(), limit], ["a", 5]);
  });

  test("that occur twice: the last value wins", () => {
    assert.equal(RangeRequest.decode(hex("1805 1806")).limit, 6);
  });

  test("that are messages and occur twice are merged", () => {
    const { requestPut } = RequestOp.decode(hex("12 03 0a0161 12 03 120162"));
    assert.deepEqual(comparable(requestPut), comparable(PutRequest.create({ key: bytes(0x61), value: bytes(0x62) })));
  });

  test("of a oneof exclude each other: the last wins", () => {
    const put = hex("12 03 0a0161");
    const range = hex("0a 03 0a0162");
    const op = RequestOp.decode(Buffer.concat([put, range]));
    assert.deepEqual([op.requestPut, Buffer.from(op.requestRange!.key).toString()], [undefined, "b"]);
    const { version, modRevision } = Compare.decode(hex("2003 3004"));
    assert.deepEqual([version, modRevision], [undefined, 4]);
  });

  test("that repeat are read packed and unpacked, in proto3 and proto2", () => {
    assert.deepEqual(WatchCreateRequest.decode(hex("2a 02 0001 28 01")).filters, [0, 1, 1]);
    assert.deepEqual(ConfState.decode(hex("0a 03 01ac02 08 05")).voters, [1n, 300n, 5n]);
  });

  test("hold views into the input", () => {
    const wire = PutRequest.encode(PutRequest.create({ key: bytes(1), value: bytes(2, 3) }));
    const { value } = PutRequest.decode(wire);
    wire[wire.length - 1] = 9;
    assert.deepEqual([...value], [2, 9]);
  });

  test("of strings keep every character, a leading byte order mark included", () => {
    for (const name of ["\ufeffname", "ключ", "🗝\0", "x".repeat(70_000)]) {
      const state = pairs.find((pair) => pair.name === "etcdserverpb.MemberAddRequest")!.ours;
      assert.deepEqual(state.decode(state.encode(state.create({ peerUrls: [name] })))["peerUrls"], [name]);
    }
  });
});

describe("malformed input is refused", () => {
  const nested = (levels: number): Buffer => {
    let wire = bytes();
    for (let i = 0; i < levels; i++) {
      const writer = new Writer();
      writer.bytes(wire);
      writer.tag(i % 2 === 0 ? 34 : 18);
      wire = writer.finish();
    }
    return wire;
  };
  const refused: [name: string, wire: Buffer, message: RegExp][] = [
    ["a tag alone", hex("0a"), /ends inside a field/],
    ["a cut varint", hex("18 8080"), /ends inside a field/],
    ["a length past the end", hex("0a 05 6161"), /ends inside a field/],
    ["a length of 2^32 + 1", hex("0a 8180808010 61"), /ends inside a field/],
    ["a length of 2^64 - 1", hex("0a ffffffffffffffffff01 61"), /ends inside a field/],
    ["an unknown field with a length of 2^32", hex("fa3f 8080808010"), /ends inside a field/],
    ["an unknown field of 8 bytes that is cut", hex("f93f 01020304050607"), /ends inside a field/],
    ["an unknown field of 4 bytes that is cut", hex("fd3f 010203"), /ends inside a field/],
    ["a varint of eleven bytes", hex("18 8080808080808080808001"), /longer than 64 bits/],
    ["a varint of 65 bits", hex("18 80808080808080808002"), /longer than 64 bits/],
    ["field number 0", hex("00 01"), /illegal field number 0/],
    ["a field number above 2^29", hex("8a80808010 00"), /illegal field number/],
    ["the end of a group that did not start", hex("fc3f"), /unexpected wire type 4/],
    ["a group that does not end", hex("fb3f 0801"), /ends inside a field/],
    ["a group that another one's end closes", hex("fb3f 14"), /unexpected wire type 4/],
    ["wire type 6", hex("fe3f"), /unexpected wire type 6/],
    ["wire type 7", hex("ff3f"), /unexpected wire type 7/],
    ["groups nested too deep", Buffer.alloc(100_000, 0x0b), /nested deeper than 256/],
  ];
  for (const [name, wire, message] of refused) {
    test(name, () => {
      assert.throws(
        () => RangeRequest.decode(wire),
        (error) => error instanceof ProtobufError && message.test(error.message),
      );
    });
  }

  test("a nested message that ends inside one of its fields, though the outer one continues", () => {
    assert.throws(() => RequestOp.decode(hex("0a 02 0a05 6161616161")), ProtobufError);
    assert.throws(() => RequestOp.decode(hex("0a 02 1880 01")), ProtobufError);
  });

  test("packed numbers of which the last is cut by the end of the field", () => {
    assert.throws(() => ConfState.decode(hex("0a 02 0180 01")), ProtobufError);
  });

  test("transactions nested deeper than the limit, but not those below it", () => {
    // Each level is a TxnRequest in a RequestOp.
    assert.doesNotThrow(() => TxnRequest.decode(nested(NESTING_DEPTH_MAX)));
    assert.throws(() => TxnRequest.decode(nested(NESTING_DEPTH_MAX + 2)), /nested deeper than 256 levels/);
  });

  test("strings that are not UTF-8", () => {
    const { ours } = pairs.find((pair) => pair.name === "etcdserverpb.MemberAddRequest")!;
    for (const text of ["ff", "c3", "c080", "eda080", "f4908080"]) {
      const wire = Buffer.concat([bytes(0x0a, text.length / 2), hex(text)]);
      assert.throws(() => ours.decode(wire), /contains invalid UTF-8/, text);
    }
  });

  test("after which the next message is read correctly", () => {
    assert.throws(() => TxnRequest.decode(nested(NESTING_DEPTH_MAX + 2)), ProtobufError);
    assert.doesNotThrow(() => TxnRequest.decode(nested(NESTING_DEPTH_MAX)));
  });

  test("random and damaged bytes end in a message or a ProtobufError, for every message", () => {
    const random = seeded(20);
    for (const pair of pairs) {
      for (let round = 0; round < FUZZ_ROUNDS; round++) {
        const wire =
          round % 3 === 0 ? noise(random) : damaged(pair.reference.encode(randomFields(pair, random)).finish(), random);
        try {
          const message = pair.ours.decode(wire);
          pair.ours.decode(pair.ours.encode(message));
        } catch (error) {
          if (error instanceof ProtobufError) continue;
          throw new Error(`${pair.name} ${wire.toString("hex")}`, { cause: error });
        }
      }
    }
  });
});

function noise(random: SeededRandom): Buffer {
  return Buffer.from(Array.from({ length: random.below(40) }, () => random.below(random.pick([32, 256]))));
}

function damaged(wire: Uint8Array, random: SeededRandom): Buffer {
  let out = Buffer.from(wire);
  for (let i = random.below(3); i >= 0; i--) {
    const at = random.below(out.length + 1);
    const kind = random.below(4);
    if (kind === 0) out = out.subarray(0, at);
    else if (kind === 1) out = Buffer.concat([out.subarray(0, at), noise(random), out.subarray(at)]);
    else if (kind === 2)
      out = Buffer.concat([out.subarray(0, at), out.subarray(Math.min(out.length, at + 1 + random.below(4)))]);
    else if (at < out.length) out[at] = random.pick([0, 127, 128, 255, random.below(256)]);
  }
  return out;
}

describe("the reader", () => {
  test("sees nothing outside its part of the input", () => {
    const wire = hex("1805 1806 1807");
    assert.equal(RangeRequest.decode(wire, 2, 4).limit, 6);
    assert.throws(() => RangeRequest.decode(wire, 2, 3), ProtobufError);
    assert.throws(() => RangeRequest.decode(hex("0a 03 616263"), 0, 4), ProtobufError);
  });

  test("allocates nothing for a length that the input does not have", () => {
    const reader = new Reader().reset(hex("ffffffff0f 00"));
    assert.throws(() => reader.bytes(), ProtobufError);
  });
});

describe("the writer", () => {
  test("never writes to a finished message again", () => {
    const random = seeded(4);
    const kept: [encoded: Buffer, copy: Buffer][] = [];
    for (let i = 0; i < 2000; i++) {
      const size = random.pick([0, 10, 300, 5000, 33_000, 70_000]);
      const encoded = PutRequest.encode(PutRequest.create({ value: Buffer.alloc(size, i) }));
      kept.push([encoded, Buffer.from(encoded)]);
      if (kept.length > 200) kept.shift();
      for (const [message, copy] of kept.slice(-3)) assert.ok(message.equals(copy));
    }
    for (const [message, copy] of kept) assert.ok(message.equals(copy));
  });

  test("writes messages of any size around the size of its chunks", () => {
    for (let size = 65_500; size < 65_560; size++) {
      const value = Buffer.alloc(size, 7);
      assert.ok(value.equals(PutRequest.decode(PutRequest.encode(PutRequest.create({ value }))).value));
    }
    const large = Buffer.alloc(9 * 1024 * 1024, 8);
    const entries = [{ type: 0, term: 1, index: 2, data: large }] as Message["entries"];
    const message = Message.decode(Message.encode(Message.create({ entries })));
    assert.ok(large.equals(message.entries[0]!.data));
  });

  test("discards a message that could not be written", () => {
    const broken = PutRequest.create({ key: Buffer.from("a"), value: 5 as never });
    assert.throws(() => TxnRequest.encode(TxnRequest.create({ compare: [{ key: null } as never] })), TypeError);
    assert.equal(PutRequest.encode({ ...broken, value: bytes() }).toString("hex"), "0a0161");
  });

  test("writes a lone surrogate as the replacement character", () => {
    const writer = new Writer();
    writer.string("a\ud800");
    assert.equal(writer.finish().toString("hex"), "0461efbfbd");
  });
});
