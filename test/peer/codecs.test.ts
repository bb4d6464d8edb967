import assert from "node:assert/strict";
import { test } from "node:test";
import { ProtobufError } from "../../src/base/protobuf.ts";
import { type FrameDecoder, StreamError } from "../../src/peer/frame-decoder.ts";
import { ResponseParser } from "../../src/peer/response-parser.ts";
import { MESSAGE_STREAM, MSG_APP_STREAM, type StreamKind } from "../../src/peer/stream-kind.ts";
import { Message, MessageType } from "../../src/proto/raftpb.ts";
import { seeded } from "../harness/random.ts";
import { append, message } from "./loopback.ts";

const LOCAL = 2n;
const REMOTE = 1n;

/** The decoder's output for a response body, given in pieces chosen by `cut`. */
function decode(kind: StreamKind, body: Buffer, cut: (left: number) => number = (left) => left): Message[] {
  const out: Message[] = [];
  const decoder = kind.decoder({ message: (one) => void out.push(one) }, LOCAL, REMOTE);
  pieces(body, cut, (piece) => decoder.push(piece, 0, piece.length));
  return out;
}

function pieces(bytes: Buffer, cut: (left: number) => number, take: (piece: Buffer) => void): void {
  for (let at = 0; at < bytes.length; ) {
    const end = at + Math.max(1, Math.min(bytes.length - at, cut(bytes.length - at)));
    // A copy, because each socket read has its own memory.
    take(Buffer.from(bytes.subarray(at, end)));
    at = end;
  }
}

/** The payload of HTTP chunks. */
function unchunk(chunks: readonly Uint8Array[]): Buffer {
  const parts: Buffer[] = [];
  const parser = new ResponseParser({
    head() {},
    body: (buf, start, end) => void parts.push(Buffer.from(buf.subarray(start, end))),
    end() {},
  });
  parser.push(Buffer.from("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"));
  parser.push(Buffer.concat(chunks));
  return Buffer.concat(parts);
}

const plain = (messages: readonly Message[]): unknown =>
  messages.map((one) => ({
    ...one,
    context: Buffer.from(one.context).toString("hex"),
    entries: one.entries.map((entry) => ({ ...entry, data: Buffer.from(entry.data).toString("hex") })),
  }));

/** A leader's messages: probing, replicating, heartbeats in between, a change of term, probing again. */
function replication(): Message[] {
  return [
    append(REMOTE, LOCAL, 10, []),
    append(REMOTE, LOCAL, 10, [5]),
    append(REMOTE, LOCAL, 11, [0, 300, 70_000]),
    append(REMOTE, LOCAL, 14, []),
    append(REMOTE, LOCAL, 14, [1]),
    append(REMOTE, LOCAL, 15, [8], 2),
    append(REMOTE, LOCAL, 16, [8], 2),
    append(REMOTE, LOCAL, 12, [8], 2),
    append(REMOTE, LOCAL, 13, [2, 2], 2),
  ];
}

const misc = (): Message[] => [
  message({ type: MessageType.MsgHeartbeat, from: REMOTE, to: LOCAL, commit: 9, context: Buffer.from("read") }),
  message({
    type: MessageType.MsgVote,
    from: 0xffffffffffffffffn,
    to: 0x8000000000000000n,
    index: 2 ** 40,
    logTerm: 7,
  }),
  message({ type: MessageType.MsgAppResp, from: REMOTE, to: LOCAL, reject: true, rejectHint: 3 }),
  message({
    type: MessageType.MsgProp,
    from: REMOTE,
    to: LOCAL,
    entries: [{ type: 0, term: 0, index: 0, data: Buffer.alloc(1000, 3) }],
  }),
];

const CASES: readonly [StreamKind, () => Message[]][] = [
  [MSG_APP_STREAM, replication],
  [MESSAGE_STREAM, misc],
];

for (const [kind, make] of CASES) {
  test(`${kind.name}: messages encoded in any batches are decoded from pieces of any size`, () => {
    const random = seeded(7);
    const messages = make();
    for (let round = 0; round < 60; round++) {
      const encoder = kind.encoder();
      const chunks: Uint8Array[] = [];
      for (let at = 0; at < messages.length; ) {
        const end = Math.min(messages.length, at + 1 + random.below(4));
        chunks.push(...encoder.encode(messages, at, end));
        if (random.below(2) === 0) chunks.push(...encoder.heartbeat());
        at = end;
      }
      const body = unchunk(chunks);
      const limit = 1 + random.below(round % 3 === 0 ? 3 : 100_000);
      const decoded = decode(kind, body, () => 1 + random.below(limit));
      assert.deepEqual(plain(decoded), plain(messages));
    }
  });

  test(`${kind.name}: a stream cut off anywhere has given complete messages and nothing else`, () => {
    const random = seeded(11);
    const messages = make();
    const body = unchunk(kind.encoder().encode(messages, 0, messages.length));
    for (let round = 0; round < 200; round++) {
      const decoded = decode(kind, body.subarray(0, random.below(body.length)));
      assert.ok(decoded.length < messages.length);
      assert.deepEqual(plain(decoded), plain(messages.slice(0, decoded.length)));
    }
  });

  test(`${kind.name}: damaged bytes are an error or messages, and never anything else`, () => {
    const random = seeded(13);
    const messages = make();
    const body = unchunk(kind.encoder().encode(messages, 0, messages.length));
    for (let round = 0; round < 2000; round++) {
      const damaged = Buffer.from(body);
      for (let i = 0; i <= random.below(4); i++)
        damaged[random.below(Math.min(damaged.length, 600))] = random.below(256);
      try {
        decode(kind, damaged, () => 1 + random.below(5000));
      } catch (error) {
        assert.ok(error instanceof StreamError || error instanceof ProtobufError, String(error));
      }
    }
  });
}

test("the first MsgApp of a stream is sent completely, one that directly follows in the same term as its entries only", () => {
  const [probe, next, heartbeat] = [
    append(REMOTE, LOCAL, 0, [3]),
    append(REMOTE, LOCAL, 1, [3]),
    append(REMOTE, LOCAL, 2, []),
  ];
  const body = unchunk(MSG_APP_STREAM.encoder().encode([probe, next, heartbeat], 0, 3));
  const probeBytes = Message.encode(probe);
  assert.equal(body[0], 2);
  assert.equal(body.readBigUInt64BE(1), BigInt(probeBytes.length));
  assert.deepEqual(body.subarray(9, 9 + probeBytes.length), probeBytes);
  let at = 9 + probeBytes.length;
  assert.equal(body[at], 1);
  assert.equal(body.readBigUInt64BE(at + 1), 1n);
  const entryBytes = Number(body.readBigUInt64BE(at + 9));
  assert.equal(body.readBigUInt64BE(at + 17 + entryBytes), 1n);
  at += 25 + entryBytes;
  assert.deepEqual([...body.subarray(at)], [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
});

test("a length beyond the limit, and a frame of an unknown type, are refused without allocating memory", () => {
  const refuse = (kind: StreamKind, bytes: number[], why: RegExp): void => {
    let decoder: FrameDecoder | undefined;
    assert.throws(() => {
      decoder = kind.decoder({ message: () => assert.fail() }, LOCAL, REMOTE);
      decoder.push(Buffer.from(bytes), 0, bytes.length);
    }, why);
  };
  refuse(MSG_APP_STREAM, [3], /failed to parse type 3 in msgappv2 stream/);
  refuse(MSG_APP_STREAM, [2, 255, 255, 255, 255, 0, 0, 0, 0], /exceeds the limit/);
  refuse(MSG_APP_STREAM, [1, 0, 0, 0, 1, 0, 0, 0, 0], /exceeds the limit/);
  refuse(MESSAGE_STREAM, [0, 0, 0, 0, 32, 0, 0, 1], /exceeds the limit/);

  // A length within the limit allocates memory only as its bytes arrive.
  const before = process.memoryUsage().arrayBuffers;
  const decoders = Array.from({ length: 100 }, () => MESSAGE_STREAM.decoder({ message() {} }, LOCAL, REMOTE));
  for (const decoder of decoders) decoder.push(Buffer.from([0, 0, 0, 0, 32, 0, 0, 0, 1]), 0, 9);
  assert.ok(process.memoryUsage().arrayBuffers - before < 50_000_000);
});

interface Seen {
  status: number;
  version: string | undefined;
  body: string;
  ended: boolean;
}

function parse(answer: string, cut: (left: number) => number = (left) => left): Seen {
  const seen: Seen = { status: 0, version: undefined, body: "", ended: false };
  const parser = new ResponseParser({
    head({ status, headers }) {
      seen.status = status;
      seen.version = headers.get("x-server-version");
    },
    body: (buf, start, end) => void (seen.body += buf.toString("latin1", start, end)),
    end() {
      seen.ended = true;
    },
  });
  pieces(Buffer.from(answer, "latin1"), cut, (piece) => parser.push(piece));
  if (!seen.ended) parser.close();
  return seen;
}

test("HTTP/1.1 responses are parsed whether chunked, counted or ended by the connection, in pieces of any size", () => {
  const random = seeded(17);
  const head = "HTTP/1.1 200 OK\r\nx-server-VERSION:  3.7.1 \r\n";
  const answers = [
    `${head}Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n7;ext=1\r\n, world\r\n0\r\nTrailer: x\r\n\r\n`,
    `${head}Content-Length: 12\r\n\r\nhello, world`,
    `${head}\r\nhello, world`,
  ];
  for (const answer of answers) {
    for (let round = 0; round < 200; round++) {
      const seen = parse(answer, () => 1 + random.below(1 + (round % 40)));
      assert.deepEqual(seen, { status: 200, version: "3.7.1", body: "hello, world", ended: true });
    }
  }
});

test("anything but an HTTP/1.1 response is refused", () => {
  for (const [answer, why] of [
    ["SSH-2.0-OpenSSH\r\n\r\n", /malformed HTTP response/],
    ["HTTP/2 200\r\n\r\n", /malformed HTTP response/],
    ["HTTP/1.1 200 OK\r\nnonsense\r\n\r\n", /malformed header line/],
    ["HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", /malformed Content-Length/],
    ["HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", /malformed size/],
    ["HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\r\n", /malformed size/],
    ["HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nabc\r\n", /longer than its size/],
    ["HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\na", /unexpected EOF/],
    [`HTTP/1.1 200 OK\r\n${"x".repeat(70_000)}`, /too long/],
    [`HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n${"0".repeat(5000)}`, /too long/],
    ["HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nab", /after the end/],
  ] as const) {
    assert.throws(() => parse(answer), why);
    assert.throws(() => parse(answer, () => 100), why);
  }
});
