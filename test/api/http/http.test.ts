import assert from "node:assert/strict";
import { type AddressInfo, connect, createServer, type Server, type Socket } from "node:net";
import { after, before, describe, test } from "node:test";
import type { HttpRequest, HttpResponse, HttpSink } from "../../../src/api/http/contract.ts";
import { HttpSide } from "../../../src/api/http/http.ts";
import { MemoryLogger } from "../../harness/memory-logger.ts";
import { VirtualClock } from "../../harness/virtual-clock.ts";
import { waitFor } from "../../harness/wait.ts";

const text = (body: string): HttpResponse => ({ status: 200, headers: {}, body });

describe("the HTTP side", () => {
  const clock = new VirtualClock();
  const logger = new MemoryLogger();
  const begun: string[] = [];
  const cancelled: string[] = [];
  const bodies = new Map<string, number>();
  let sink: HttpSink | undefined;
  let release: (() => void) | undefined;
  let side: HttpSide;
  let listener: Server;

  const handler = (request: HttpRequest): Promise<HttpResponse> | undefined => {
    const { path } = request;
    begun.push(path);
    request.onCancel = () => cancelled.push(path);
    if (path === "/wrong") throw new Error("a mistake");
    if (path === "/header") return Promise.resolve({ status: 200, headers: { "x-bad": "a\nb" }, body: "" });
    if (path === "/stream") {
      return Promise.resolve({ status: 200, headers: {}, body: (to) => void (sink = to) });
    }
    if (path === "/later") {
      return new Promise((resolve) => {
        release = () => resolve(text("later"));
      });
    }
    if (path === "/read" || path === "/rest") {
      return new Promise((resolve) => {
        request.body.read({
          piece: (bytes) => bodies.set(path, (bodies.get(path) ?? 0) + bytes.length),
          end: () => resolve(text("read")),
          mayRest: path === "/rest",
        });
      });
    }
    return path === "/none" ? undefined : Promise.resolve(text(path));
  };

  before(async () => {
    side = new HttpSide({ clock, logger, handlers: [handler], cors: [], hostWhitelist: [] });
    listener = createServer((socket) => side.handleConnection(socket, Buffer.alloc(0)));
    await new Promise<void>((resolve) => listener.listen(0, "127.0.0.1", resolve));
  });
  after(async () => {
    listener.close();
    await side.close(0);
  });

  class Client {
    readonly socket: Socket;
    received = "";
    closed = false;

    constructor() {
      this.socket = connect((listener.address() as AddressInfo).port, "127.0.0.1");
      this.socket.on("data", (chunk) => {
        this.received += chunk.toString("latin1");
      });
      this.socket.on("error", () => {});
      this.socket.on("close", () => {
        this.closed = true;
      });
    }

    send(...lines: string[]): void {
      this.socket.write(lines.join("\r\n"));
    }

    async answer(what: string | RegExp): Promise<void> {
      await waitFor(`an answer ${what}`, () => this.received.search(what) >= 0 || this.closed);
      assert.match(this.received, new RegExp(what));
      this.received = "";
    }
  }

  const head = (method: string, path: string, ...headers: string[]): string =>
    [`${method} ${path} HTTP/1.1`, "Host: test", ...headers, "", ""].join("\r\n");

  test("serves pipelined requests of a connection one at a time", async () => {
    const client = new Client();
    client.send(
      head("GET", "/later") +
        head("GET", "/b") +
        head("POST", "/read", "Content-Length: 3") +
        "abc" +
        head("GET", "/c"),
    );
    await waitFor("the first", () => release !== undefined);
    client.send(head("GET", "/d"));
    await new Promise((resolve) => setImmediate(resolve));
    assert.deepEqual(begun.splice(0), ["/later"]);
    release!();
    await client.answer(/later[\s\S]*\/b[\s\S]*read[\s\S]*\/c[\s\S]*\/d/);
    assert.deepEqual(begun.splice(0), ["/b", "/read", "/c", "/d"]);
    client.socket.destroy();
  });

  test("redirects a path that is not clean, before any handler sees it", async () => {
    const client = new Client();
    client.send(head("GET", "//b?<"));
    await client.answer(
      /^HTTP\/1.1 307 [\s\S]*location: \/b\?<\r\n[\s\S]*<a href="\/b\?&lt;">Temporary Redirect<\/a>.\n\n$/,
    );
    client.send(head("POST", "/./b", "Content-Length: 0"));
    await client.answer(/^HTTP\/1.1 307 [\s\S]*location: \/b\r\n[\s\S]*content-length: 0\r\n[\s\S]*\r\n\r\n$/);
    client.send(head("GET", "http://other//b"));
    await client.answer("307");
    client.send(head("GET", "/%zz"));
    await client.answer(/^HTTP\/1.1 400 [\s\S]*400 Bad Request$/);
    assert.deepEqual(begun.splice(0), []);
    client.socket.destroy();
  });

  test("refuses a request without a host, with two, or with an impossible one", async () => {
    for (const [headers, answer] of [
      ["", "400 Bad Request: missing required Host header"],
      ["Host: a\r\nHost: b\r\n", "400 Bad Request"],
      ["Host: a b\r\n", "400 Bad Request: malformed Host header"],
    ]) {
      const client = new Client();
      client.send(`GET /b HTTP/1.1\r\n${headers}\r\n`);
      await waitFor("it is closed", () => client.closed);
      assert.ok(client.received.startsWith(`HTTP/1.1 ${answer}\r\n`) && client.received.endsWith(`\r\n\r\n${answer}`));
    }
    const old = new Client();
    old.send("GET /b HTTP/1.0\r\n\r\n");
    await old.answer("200");
    assert.deepEqual(begun.splice(0), ["/b"]);
  });

  test("fails a request whose handler throws, and no other", async () => {
    const client = new Client();
    client.send(head("GET", "/wrong") + head("GET", "/b"));
    await client.answer(/^HTTP\/1.1 500 [\s\S]*internal error\nHTTP\/1.1 200 [\s\S]*\/b/);
    client.send(head("GET", "/header"));
    await waitFor("the connection is closed", () => client.closed);
    const other = new Client();
    other.send(head("GET", "/b"));
    await other.answer("200");
    other.socket.destroy();
    assert.ok(logger.lines.some(({ message }) => message === "failed to serve an HTTP request"));
  });

  test("holds an answer back while its client does not read, and notices when the client disconnects", async () => {
    const client = new Client();
    client.socket.pause();
    client.send(head("GET", "/stream"));
    await waitFor("the sink", () => sink !== undefined);
    let pieces = 1;
    while (sink!.write("x".repeat(64 * 1024))) pieces++;
    assert.ok(pieces < 10, `${pieces} pieces were taken`);
    cancelled.length = 0;
    client.socket.destroy();
    await waitFor("the end is told", () => cancelled.includes("/stream"));
  });

  test("answers before the body is complete, and reads the rest of a small one", async () => {
    const client = new Client();
    client.send(`${head("POST", "/b", "Content-Length: 10")}12345`);
    await waitFor("the handler", () => begun.includes("/b"));
    client.send(`67890${head("GET", "/c")}`);
    await client.answer(/\/b[\s\S]*\/c/);
    const large = new Client();
    large.send(head("POST", "/b", "Content-Length: 100000000") + "x".repeat(300_000));
    await large.answer(/connection: close/i);
    await waitFor("it is closed", () => large.closed);
    client.socket.destroy();
  });

  test("ends a request whose body is too slow, but not one that may pause", async () => {
    const slow = new Client();
    slow.send(`${head("POST", "/read", "Content-Length: 100000")}some`);
    const resting = new Client();
    resting.send(`${head("POST", "/rest", "Content-Length: 8")}some`);
    const moving = new Client();
    bodies.clear();
    await waitFor("both are read", () => bodies.get("/read") === 4 && bodies.get("/rest") === 4);
    clock.advance(30_000);
    moving.send(`${head("POST", "/read", "Content-Length: 20000")}${"x".repeat(5000)}`);
    await waitFor("it is read", () => bodies.get("/read") === 5004);
    clock.advance(30_000);
    await slow.answer(/^HTTP\/1.1 408 /);
    await waitFor("it is closed", () => slow.closed);
    moving.send("x".repeat(15_000));
    resting.send("more");
    await moving.answer(/200/);
    await resting.answer(/200/);
    for (const client of [moving, resting]) client.socket.destroy();
  });

  test("accepts headers up to 128 KiB, and reports larger ones", async () => {
    const client = new Client();
    client.send(head("GET", "/b", `X-Large: ${"x".repeat(100_000)}`));
    await client.answer("200");
    client.send(head("GET", "/b", `X-Large: ${"x".repeat(200_000)}`));
    await client.answer(/^HTTP\/1.1 431 /);
    await waitFor("it is closed", () => client.closed);
  });
});
