/** The output of a connection shares chunks with all others: none may have a chunk whose bytes are still to be sent. */
import assert from "node:assert/strict";
import { Socket } from "node:net";
import { test } from "node:test";
import { CHUNK_BYTES, ChunkPool, Output } from "../../src/rpc/output.ts";

type Done = (error?: Error | null) => void;

/** Takes bytes when the test says so, as a socket whose client reads slowly. */
class SlowSocket extends Socket {
  sent = "";
  #done: Done | undefined;

  override _write(chunk: Buffer, _encoding: string, done: Done): void {
    this.sent += chunk.toString("latin1");
    this.#done = done;
  }

  override _writev(chunks: { chunk: Buffer }[], done: Done): void {
    for (const { chunk } of chunks) this.sent += chunk.toString("latin1");
    this.#done = done;
  }

  acceptAll(): void {
    const done = this.#done;
    this.#done = undefined;
    done?.();
  }
}

const put = (output: Output, text: string): void => {
  const at = output.reserve(text.length);
  output.buf.write(text, at, "latin1");
};

test("a chunk with unflushed output stays with its connection when the socket has taken what came before", () => {
  const pool = new ChunkPool();
  const socket = new SlowSocket();
  const output = new Output(socket, pool, () => {});
  put(output, "first ");
  output.flush();
  put(output, "header ");
  output.append(Buffer.alloc(CHUNK_BYTES, "x"));
  socket.acceptAll();
  // Another connection writes.
  const other = pool.take();
  other.fill("?");
  output.flush();
  socket.acceptAll();
  assert.ok(socket.sent.startsWith("first header xxx"), socket.sent.slice(0, 20));
});

test("a chunk is returned when the socket has taken all of its bytes", () => {
  const pool = new ChunkPool();
  const socket = new SlowSocket();
  const output = new Output(socket, pool, () => {});
  put(output, "all");
  const chunk = output.buf;
  output.flush();
  assert.equal(output.buf, chunk);
  socket.acceptAll();
  assert.equal(output.buf.length, 0);
  assert.equal(pool.take(), chunk);
});
