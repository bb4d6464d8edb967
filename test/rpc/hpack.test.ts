import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { HpackDecoder, HpackError } from "../../src/rpc/hpack/decoder.ts";
import { HpackEncoder } from "../../src/rpc/hpack/encoder.ts";
import type { HeaderField } from "../../src/rpc/hpack/fields.ts";
import { huffmanDecode } from "../../src/rpc/hpack/huffman.ts";
import { block } from "./harness.ts";

const LIST_MAX = 1 << 20;

function decode(decoder: HpackDecoder, bytes: Uint8Array, listMax = LIST_MAX): string[] {
  const fields: HeaderField[] = [];
  decoder.decode(Buffer.from(bytes), 0, bytes.length, fields, listMax);
  return fields.map((field) => `${field.name}: ${field.value}`);
}

const hex = (text: string): Buffer => Buffer.from(text.replaceAll(" ", ""), "hex");

describe("HPACK, against the examples of RFC 7541, appendix C", () => {
  test("C.2: each representation of a field", () => {
    const decoder = new HpackDecoder();
    assert.deepEqual(decode(decoder, hex("400a637573746f6d2d6b65790d637573746f6d2d686561646572")), [
      "custom-key: custom-header",
    ]);
    assert.equal(decoder.tableSize, 55);
    assert.deepEqual(decode(decoder, hex("040c2f73616d706c652f70617468")), [":path: /sample/path"]);
    assert.deepEqual(decode(decoder, hex("100870617373776f726406736563726574")), ["password: secret"]);
    assert.deepEqual(decode(decoder, hex("82")), [":method: GET"]);
    assert.equal(decoder.tableSize, 55);
  });

  const requests = [
    [":method: GET", ":scheme: http", ":path: /", ":authority: www.example.com"],
    [":method: GET", ":scheme: http", ":path: /", ":authority: www.example.com", "cache-control: no-cache"],
    [":method: GET", ":scheme: https", ":path: /index.html", ":authority: www.example.com", "custom-key: custom-value"],
  ];
  test("C.3 and C.4: successive requests, plain and Huffman-coded", () => {
    const plain = [
      "828684410f7777772e6578616d706c652e636f6d",
      "828684be58086e6f2d6361636865",
      "828785bf400a637573746f6d2d6b65790c637573746f6d2d76616c7565",
    ];
    const huffman = [
      "828684418cf1e3c2e5f23a6ba0ab90f4ff",
      "828684be5886a8eb10649cbf",
      "828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf",
    ];
    for (const blocks of [plain, huffman]) {
      const decoder = new HpackDecoder();
      const sizes = [57, 110, 164];
      blocks.forEach((bytes, i) => {
        assert.deepEqual(decode(decoder, hex(bytes)), requests[i]);
        assert.equal(decoder.tableSize, sizes[i]);
      });
    }
  });

  const responses = [
    [
      ":status: 302",
      "cache-control: private",
      "date: Mon, 21 Oct 2013 20:13:21 GMT",
      "location: https://www.example.com",
    ],
    [
      ":status: 307",
      "cache-control: private",
      "date: Mon, 21 Oct 2013 20:13:21 GMT",
      "location: https://www.example.com",
    ],
    [
      ":status: 200",
      "cache-control: private",
      "date: Mon, 21 Oct 2013 20:13:22 GMT",
      "location: https://www.example.com",
      "content-encoding: gzip",
      "set-cookie: foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1",
    ],
  ];
  test("C.5 and C.6: successive responses in a table of 256 bytes, which evicts", () => {
    const plain = [
      "4803333032580770726976617465611d4d6f6e2c203231204f637420323031332032303a31333a323120474d546e1768747470733a2f2f7777772e6578616d706c652e636f6d",
      "4803333037c1c0bf",
      "88c1611d4d6f6e2c203231204f637420323031332032303a31333a323220474d54c05a04677a69707738666f6f3d4153444a4b48514b425a584f5157454f50495541585157454f49553b206d61782d6167653d333630303b2076657273696f6e3d31",
    ];
    const huffman = [
      "488264025885aec3771a4b6196d07abe941054d444a8200595040b8166e082a62d1bff6e919d29ad171863c78f0b97c8e9ae82ae43d3",
      "4883640effc1c0bf",
      "88c16196d07abe941054d444a8200595040b8166e084a62d1bffc05a839bd9ab77ad94e7821dd7f2e6c7b335dfdfcd5b3960d5af27087f3672c1ab270fb5291f9587316065c003ed4ee5b1063d5007",
    ];
    for (const blocks of [plain, huffman]) {
      const decoder = new HpackDecoder();
      decode(decoder, hex("3fe101"));
      const sizes = [222, 222, 215];
      blocks.forEach((bytes, i) => {
        assert.deepEqual(decode(decoder, hex(bytes)), responses[i]);
        assert.equal(decoder.tableSize, sizes[i]);
      });
    }
  });
});

describe("HPACK decoding", () => {
  const refused = (bytes: string, text: RegExp): void => {
    assert.throws(
      () => decode(new HpackDecoder(), hex(bytes)),
      (error: Error) => error instanceof HpackError && text.test(error.message),
      bytes,
    );
  };

  test("refuses what the RFC calls a decoding error", () => {
    refused("80", /index 0/);
    refused("be", /index 62 is beyond the table/);
    refused("ffffffffff7f", /integer/);
    refused("7fffffffff0f", /integer above/);
    refused("4005616263", /ends inside a string/);
    refused("40", /ends before a string/);
    refused("ff", /ends inside an integer/);
    refused("823fe101", /size update after/);
    refused("202020", /size update after/);
    refused("3fe17f", /above the 4096/);
    refused("0081ff00", /Huffman/); // eight bits of padding
    refused("0084ffffffff00", /Huffman/); // the end-of-string symbol
    refused("0081fe00", /Huffman/); // padding with a zero
  });

  test("a field larger than the table empties it", () => {
    const decoder = new HpackDecoder();
    decode(decoder, hex("400a637573746f6d2d6b65790d637573746f6d2d686561646572"));
    const large = Buffer.concat([hex("4001617fe11f"), Buffer.alloc(4192, "x")]);
    assert.equal(decode(decoder, large)[0]!.length, 4195);
    assert.equal(decoder.tableSize, 0);
  });

  test("fields beyond the list limit are counted but not kept", () => {
    const decoder = new HpackDecoder();
    const fields = decode(decoder, block(Array.from({ length: 100 }, () => ["name", "x".repeat(100)])), 1000);
    assert.equal(fields.length, 7);
    assert.equal(decoder.listSize, 13_600);
  });

  test("the version changes with the table, and only then", () => {
    const decoder = new HpackDecoder();
    const { version } = decoder;
    decode(decoder, hex("828684"));
    decode(decoder, hex("040c2f73616d706c652f70617468"));
    assert.equal(decoder.version, version);
    decode(decoder, hex("400a637573746f6d2d6b65790d637573746f6d2d686561646572"));
    assert.notEqual(decoder.version, version);
  });

  test("Huffman strings end on a symbol, whatever its length", () => {
    assert.equal(huffmanDecode(hex("18c6318c6318c6318c63"), 0, 10), "a".repeat(16));
    assert.equal(huffmanDecode(hex("fffffffb"), 0, 4), "\x16");
    assert.equal(huffmanDecode(hex(""), 0, 0), "");
  });
});

describe("HPACK encoding", () => {
  const ok = ["grpc-status: 0", "grpc-message: "];
  const headers = [":status: 200", "content-type: application/grpc", "grpc-accept-encoding: gzip"];

  test("the constant fields enter the table once, then blocks are a few bytes", () => {
    const encoder = new HpackEncoder();
    const decoder = new HpackDecoder();
    for (let i = 0; i < 3; i++) {
      const head = encoder.grpcHeaders();
      assert.deepEqual(decode(decoder, head), headers);
      const trailers = encoder.grpcTrailersOk();
      assert.deepEqual(decode(decoder, trailers), ok);
      if (i > 0) assert.deepEqual([head.length, trailers.length], [3, 2]);
    }
    assert.deepEqual(decode(decoder, encoder.grpcHeadersSpecial("application/grpc", true)), [
      ...headers,
      "grpc-encoding: gzip",
    ]);
    assert.deepEqual(decode(decoder, encoder.grpcHeaders()), headers);
    assert.deepEqual(
      decode(
        decoder,
        encoder.block([
          [":status", "404"],
          ["x", "y".repeat(300)],
        ]),
      ),
      [":status: 404", `x: ${"y".repeat(300)}`],
    );
    assert.deepEqual(decode(decoder, encoder.grpcTrailersOk()), ok);
  });

  test("a peer may shrink, forbid and reallow its table at any time", () => {
    const encoder = new HpackEncoder();
    const decoder = new HpackDecoder();
    for (const size of [4096, 600, 0, 100, 4096, 65536, 0, 512]) {
      encoder.setPeerTableSize(size);
      for (let i = 0; i < 2; i++) {
        assert.deepEqual(decode(decoder, encoder.grpcHeaders()), headers);
        assert.deepEqual(decode(decoder, encoder.grpcTrailersOk()), ok);
        assert.ok(decoder.tableSize <= Math.min(size, 4096), `${decoder.tableSize} in a table of ${size}`);
      }
    }
    encoder.setPeerTableSize(0);
    encoder.setPeerTableSize(4096);
    assert.deepEqual(decode(decoder, encoder.grpcHeaders()), headers);
  });
});
