import assert from "node:assert/strict";
import { once } from "node:events";
import { connect } from "node:net";
import { after, before, describe, test } from "node:test";
import { type InProcess, startInProcess } from "../harness/in-process.ts";

describe("one port for HTTP/1 and HTTP/2", () => {
  let server: InProcess;
  before(async () => {
    server = await startInProcess({});
  });
  after(() => server.close());

  /** The server's output for `pieces`, each sent separately, until it ends the connection. */
  async function answerTo(...pieces: string[]): Promise<string> {
    const socket = connect(Number(new URL(server.url).port), "127.0.0.1").setNoDelay(true);
    let answer = "";
    socket.on("data", (chunk) => {
      answer += chunk.toString("latin1");
    });
    for (const piece of pieces) await new Promise((resolve) => socket.write(piece, resolve));
    await once(socket, "close");
    return answer;
  }

  test("an HTTP/1 request is answered, however its first bytes arrive", async () => {
    const rest = " /version HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    assert.match(await answerTo(`GET${rest}`), /^HTTP\/1\.1 200 /);
    assert.match(await answerTo("G", "E", `T${rest}`), /^HTTP\/1\.1 200 /);
    // Begins like HTTP/2's preface, "PRI".
    assert.match(await answerTo("PR", `OPFIND${rest}`), /^HTTP\/1\.1 405 /);
  });

  test("any other protocol is cut off without an answer, as h2spec requires for a wrong preface", async () => {
    for (const text of [
      "INVALID CONNECTION PREFACE\r\n\r\n",
      "PRI * HTTP/1.1\r\n\r\n",
      "\x16\x03\x01\x02\x00",
      "get / HTTP/1.1\r\n",
    ])
      assert.equal(await answerTo(text), "", text);
  });
});
