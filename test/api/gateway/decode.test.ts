// Slow: many thousand mutated texts, and values of megabytes.
import assert from "node:assert/strict";
import { isUtf8 } from "node:buffer";
import { describe, test } from "node:test";
import { type Decoded, MessageDecoder } from "../../../src/api/gateway/decode.ts";
import { JsonSyntaxError } from "../../../src/api/gateway/json-errors.ts";
import { type MessageShape, Schema } from "../../../src/api/gateway/schema.ts";
import { PutRequest, TxnRequest } from "../../../src/proto/etcdserverpb.ts";
import { seeded } from "../../harness/random.ts";
import { requests } from "../gateway-requests.ts";

const schema = new Schema();
const put = schema.message("etcdserverpb.PutRequest");
const txn = schema.message("etcdserverpb.TxnRequest");
const range = schema.message("etcdserverpb.RangeRequest");

function decode(shape: MessageShape, text: string | Uint8Array, nextLength: () => number, bytesMax = 1e9): Decoded {
  const bytes = Buffer.from(text as string);
  const decoder = new MessageDecoder(shape, bytesMax);
  for (let at = 0; at < bytes.length && !decoder.done; ) {
    const end = Math.min(bytes.length, at + nextLength());
    // Each piece in its own memory, which is overwritten when the next one comes.
    const piece = Buffer.from(bytes.subarray(at, end));
    at += decoder.feed(piece, 0, piece.length);
    piece.fill(0);
  }
  if (!decoder.end()) return { kind: "error", error: "nothing" };
  return decoder.result();
}

const whole = (): number => Number.POSITIVE_INFINITY;

function messageOf(decoded: Decoded): Uint8Array {
  assert.ok(decoded.kind === "message", JSON.stringify(decoded).slice(0, 200));
  return decoded.message;
}

/** The result of any text. */
function outcome(shape: MessageShape, text: string | Uint8Array, nextLength: () => number): unknown {
  try {
    const decoded = decode(shape, text, nextLength);
    return decoded.kind === "message" ? Buffer.from(decoded.message).toString("hex") : decoded;
  } catch (error) {
    if (!(error instanceof JsonSyntaxError)) throw error;
    return error.message;
  }
}

function parses(text: string): boolean {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}

/** A beginning of the text is JSON, or all of it is white space. */
function hasJsonAtStart(text: string): boolean {
  if (/^[ \n\r\t]*$/.test(text)) return true;
  for (let end = 1; end < text.length; end++) if (parses(text.slice(0, end))) return true;
  return false;
}

describe("messages that come as JSON in pieces", () => {
  test("are the same wherever they are split, and so are their errors", () => {
    const random = seeded(3);
    for (const { path, body } of requests) {
      if (body.length > 10_000) continue;
      const shape = path.endsWith("txn") ? txn : path.endsWith("put") ? put : range;
      const expected = outcome(shape, body, whole);
      assert.deepEqual(
        outcome(shape, body, () => 1),
        expected,
        Buffer.from(body).toString(),
      );
      assert.deepEqual(
        outcome(shape, body, () => 1 + random.below(20)),
        expected,
      );
    }
  });

  test("are refused for their syntax exactly when JSON.parse refuses them, whatever the text", () => {
    const random = seeded(17);
    const texts = requests.map(({ body }) => Buffer.from(body)).filter(({ length }) => length > 2 && length < 300);
    const alphabet = Buffer.from('{}[]:,"\\/0123456789.-+eEtrufalsn \n\t\u0001u');
    let refused = 0;
    for (let i = 0; i < 20_000; i++) {
      const text = Buffer.from(random.pick(texts));
      for (let n = random.below(4); n >= 0; n--) {
        const at = random.below(text.length);
        if (random.chance(0.3)) text.copyWithin(at, random.below(text.length));
        else text[at] = alphabet[random.below(alphabet.length)]!;
      }
      if (!isUtf8(text)) continue;
      const isJson = parses(text.toString());
      const result = outcome(range, text, () => 1 + random.below(10));
      const isRefused = typeof result === "string" && /^(invalid character|unexpected EOF|exceeded)/.test(result);
      if (isRefused) refused++;
      // Anything may follow the value, so a text may be accepted that is not JSON as a whole.
      if (isJson) assert.ok(!isRefused, text.toString());
      assert.deepEqual(outcome(range, text, whole), result, text.toString());
      if (!isJson && !isRefused) assert.ok(hasJsonAtStart(text.toString()), text.toString());
    }
    assert.ok(refused > 1000);
  });

  test("hold values of any size: of 4 MB, with line ends and escapes inside", () => {
    const value = Buffer.alloc(4_000_000, "a value\xff\xfe\xfd", "latin1");
    const plain = value.toString("base64");
    const escaped = plain.replaceAll("/", "\\/");
    // Enough line ends to make the length a multiple of four; otherwise Go rejects the padding.
    const wrapped = plain.replace(/.{76}/g, "$&\\r\\n\\r\\n");
    for (const text of [plain, escaped, wrapped, value.toString("base64url")]) {
      for (const piece of [() => 65_536, whole]) {
        const message = messageOf(decode(put, `{"key":"aw==","value":"${text}"}`, piece));
        assert.ok(Buffer.from(PutRequest.decode(message).value).equals(value));
      }
    }
  });

  test("are refused for invalid base64, in long values as in short ones", () => {
    const run = "A".repeat(20_000);
    const kinds = (text: string): string[] =>
      [whole, () => 4000, () => 701].map((piece) => decode(put, `{"value":"${text}"}`, piece).kind);
    for (const good of [
      `${run}`,
      `${run}+/${run}AA`,
      `${run}-_${run}AA`,
      `${run}AA==`,
      `A${run}AAA`,
      `AA${run}`,
      `AAA${run}`,
    ]) {
      assert.deepEqual(new Set(kinds(good)), new Set(["message"]), good.replaceAll(run, "…"));
    }
    for (const bad of [
      `${run}+_${run}AA`,
      `-${run}/${run}AA`,
      `${run}=${run}`,
      `${run}A===`,
      `${run} ${run}AAA`,
      `${run}é${run}AA`,
      `A${run}`,
      `${run}\\u0000${run}AAA`,
    ]) {
      assert.deepEqual(new Set(kinds(bad)), new Set(["error"]), bad.replaceAll(run, "…"));
    }
  });

  test("are only counted above the limit", () => {
    const text = (bytes: number): string => `{"value":"${Buffer.alloc(bytes).toString("base64")}","key":"aw=="}`;
    assert.equal(decode(put, text(996), whole, 1002).kind, "message");
    assert.deepEqual(decode(put, text(997), whole, 1002), { kind: "too large", bytes: 1003 });
    assert.deepEqual(decode(put, text(3_000_000), whole, 1000), { kind: "too large", bytes: 3_000_008 });
    const many = `{"compare":[${Array(5000).fill('{"key":"aw=="}').join(",")}]}`;
    assert.deepEqual(decode(txn, many, whole, 1000), { kind: "too large", bytes: 25_000 });
    assert.deepEqual(decode(put, `{"value":"${"A".repeat(4001)}"}`, whole, 1000).kind, "error");
  });

  test("take time linear in their length, whatever their content", () => {
    const digits = "9".repeat(1_000_000);
    const zeros = "0".repeat(1_000_000);
    const name = `"${"n".repeat(1_000_000)}"`;
    for (const text of [
      `{"limit":${digits}}`,
      `{"limit":"${digits}"}`,
      `{"limit":1.${zeros}1}`,
      `{"limit":"1.${zeros}1"}`,
      `{"limit":1e${digits}}`,
      `{"sort_order":${name}}`,
      `{${name}:${name}}`,
      `{"key":"${"\\/".repeat(500_000)}"}`,
      `{"x":"${"\\ud83d\\ude00".repeat(100_000)}"}`,
      `{${Array(200_000).fill('"x":1').join(",")}}`,
      `{"x":[${Array(300_000).fill("{}").join(",")}]}`,
      `{"x":${"[".repeat(9_000)}${"]".repeat(9_000)}}`,
      `{"key":${"\n".repeat(1_000_000)}5}`,
      `{"key":"${"=".repeat(1_000_000)}"}`,
    ]) {
      const before = process.cpuUsage();
      outcome(range, text, () => 65_536);
      const { user } = process.cpuUsage(before);
      assert.ok(user < 2_000_000, `${text.slice(0, 40)}… took ${user} µs`);
    }
  });

  test("keep fields in any order, and oneofs and lists as they are", () => {
    const text = `{"failure":[{"request_put":{"value":"dg==","key":"aw=="}}],"compare":[{"target":"MOD","mod_revision":"7"}]}`;
    const { compare, failure } = TxnRequest.decode(messageOf(decode(txn, text, whole)));
    assert.equal(compare[0]!.modRevision, 7);
    assert.equal(Buffer.from(failure[0]!.requestPut!.key).toString(), "k");
  });

  test("report a lone surrogate as Go does, with the following bytes", () => {
    const error = (text: string): unknown => {
      const decoded = decode(range, text, () => 3);
      return decoded.kind === "error" ? decoded.error : decoded;
    };
    assert.equal(error('{"key":"\\ud800"}'), "proto: unexpected EOF");
    assert.equal(error('{"x":1,"key":"\\ud800"}       '), "proto: unexpected EOF");
    const bad = "proto: syntax error (line 1:8): invalid escape code";
    assert.equal(error('{"key":"\\ud800abcdefgh"}'), `${bad} "abcdef" in string`);
    assert.equal(error('{"key":"\\ud800\\u0041x"}'), `${bad} "\\\\u0041" in string`);
    assert.equal(error('{"key":"\\ude00\\ud83d"}'), `${bad} "\\\\ud83d" in string`);
    assert.equal(error('{"key":"\\ud800\\nabcdefgh"}'), `${bad} "\\\\nabcd" in string`);
  });
});
