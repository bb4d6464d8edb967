/** Small messages of a stream share data frames, however they are written, and each stream gets its own. */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import type { StreamCall } from "../../src/rpc/contract.ts";
import { Flag, FRAME_BYTES_MAX, FrameType, Setting } from "../../src/rpc/protocol.ts";
import { frame, grpcHead, message, type RawClient, TestServer, uint32 } from "./harness.ts";

let server: TestServer;
/** The open calls, in the order of their streams. */
let calls: StreamCall[] = [];

before(async () => {
  server = await TestServer.start();
  server.rpc.stream("/t.S/Stream", (call) => {
    calls.push(call);
  });
});
after(() => server.stop());

async function opened(streams: number, settings: readonly (readonly [number, number])[] = []): Promise<RawClient> {
  calls = [];
  const raw = await server.connect(settings);
  for (let i = 0; i < streams; i++)
    raw.write(frame(FrameType.headers, Flag.endHeaders, 2 * i + 1, grpcHead("/t.S/Stream")));
  await raw.until(() => calls.length === streams, "the calls");
  return raw;
}

const framesOf = (raw: RawClient, id: number): Buffer[] =>
  raw.frames.filter((f) => f.type === FrameType.data && f.id === id).map(({ payload }) => payload);
const texts = (count: number, name: string): string[] => Array.from({ length: count }, (_, i) => `${name} ${i}`);
const joined = (all: readonly string[]): Buffer => Buffer.concat(all.map((text) => message(text)));

test("thousands of small messages sent at once come in a few frames, none above the limit", async () => {
  const raw = await opened(1);
  const all = texts(3000, "event");
  for (const text of all) calls[0]!.send(Buffer.from(text));
  calls[0]!.end();
  const { data } = await raw.ofStream(1);
  assert.deepEqual(data, joined(all));
  const sizes = framesOf(raw, 1).map(({ length }) => length);
  assert.ok(sizes.length < 20, `${sizes.length} frames`);
  assert.ok(sizes.every((size) => size <= FRAME_BYTES_MAX));
});

test("messages that two streams send in turn, of all sizes, stay each in its own stream", async () => {
  const raw = await opened(2, [[Setting.initialWindowSize, 0x7fffffff]]);
  raw.write(frame(FrameType.windowUpdate, 0, 0, uint32(0x7fff0000 - 65535)));
  const sent: Buffer[][] = [[], []];
  for (let i = 0; i < 600; i++) {
    const which = (i * i) % 7 < 4 ? 0 : 1;
    const bytes = Buffer.alloc((i * 37) % 9000, `${which}${i};`);
    sent[which]!.push(message(bytes));
    calls[which]!.send(bytes);
    // A flush in between.
    if (i % 50 === 49) await new Promise((resolve) => setImmediate(resolve));
  }
  for (const call of calls) call.end();
  for (const which of [0, 1]) {
    const { data } = await raw.ofStream(2 * which + 1);
    assert.ok(data.equals(Buffer.concat(sent[which]!)), `stream ${which} got what was sent on it`);
  }
});

test("what waited for the client's window shares frames too, as large as the window allows", async () => {
  const raw = await opened(1, [[Setting.initialWindowSize, 0]]);
  const all = texts(500, "event");
  for (const text of all) calls[0]!.send(Buffer.from(text));
  calls[0]!.end();
  const bytes = joined(all);
  let window = 0;
  for (const step of [1, 7, 100, 1000, bytes.length]) {
    raw.write(frame(FrameType.windowUpdate, 0, 1, uint32(step)));
    window = Math.min(window + step, bytes.length);
    await raw.until(() => raw.data(1).length === window, `${window} bytes`);
  }
  const { data } = await raw.ofStream(1);
  assert.deepEqual(data, bytes);
  assert.ok(framesOf(raw, 1).length <= 120, `${framesOf(raw, 1).length} frames`);
});
