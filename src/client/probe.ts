/**
 * Finds out why an endpoint does not answer: connects as a client would, up to the first HTTP/2 frame, and reports the
 * first failure. gRPC libraries hide it while they retry.
 */
import { connect as connectTcp, isIP, type NetConnectOpts, type Socket } from "node:net";
import { connect as connectTls } from "node:tls";
import type { Clock } from "../base/clock.ts";
import { type Address, EndpointError, hostPort, parseEndpoint } from "./endpoint.ts";
import type { TlsOptions } from "./raw.ts";
import { systemRoots } from "./roots.ts";
import { alertTrouble, certificateTrouble } from "./tls-trouble.ts";
import type { Trouble } from "./trouble.ts";

/** Undefined when the endpoint answers this client with HTTP/2. */
export async function findTrouble(
  endpoint: string,
  tls: TlsOptions | undefined,
  timeoutMs: number,
  clock: Clock,
): Promise<Trouble | undefined> {
  let address: Address;
  try {
    address = parseEndpoint(endpoint);
  } catch (error) {
    if (error instanceof EndpointError) return { text: error.message, lasting: true };
    throw error;
  }
  const probe = new Probe(address, timeoutMs, clock);
  return tls === undefined ? probe.plainly() : probe.securely(tls);
}

/** The client's preface and an empty SETTINGS frame. */
const HELLO = Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0", "latin1");
const FRAME_HEADER_BYTES = 9;
const SECOND_LOOK_MS = 200;
const SETTINGS = 4;

type Greeting = "http2" | "http1" | "other" | Error;

class Probe {
  readonly #address: Address;
  readonly #timeoutMs: number;
  readonly #clock: Clock;

  constructor(address: Address, timeoutMs: number, clock: Clock) {
    this.#address = address;
    this.#timeoutMs = timeoutMs;
    this.#clock = clock;
  }

  async plainly(): Promise<Trouble | undefined> {
    const socket = await this.#dial();
    if (!isSocket(socket)) return socket;
    const greeting = await this.#greet(socket);
    if (greeting === "http2") return undefined;
    if (await this.#speaksTls()) {
      return { text: "the server speaks TLS, and this client does not", lasting: true, kind: "speaks-tls" };
    }
    return greetingTrouble(greeting);
  }

  async securely(tls: TlsOptions, again = false): Promise<Trouble | undefined> {
    const socket = await this.#dial();
    if (!isSocket(socket)) return socket;
    const host = tls.serverName ?? this.#address.host;
    const secure = connectTls({
      socket,
      ...certificatesOf(tls),
      // Certificates are verified below, with error texts that name the certificate.
      rejectUnauthorized: false,
      ALPNProtocols: ["h2"],
      ...(isIP(host) === 0 ? { servername: host } : {}),
    });
    const failure = await this.#until(secure, "secureConnect");
    if (failure !== undefined) {
      secure.destroy();
      const alert = alertTrouble(failure, tls.cert !== undefined);
      if (alert !== undefined) return alert;
      if (await this.#speaksPlainHttp2()) {
        return { text: "the server speaks no TLS, and this client does", lasting: true, kind: "speaks-plain" };
      }
      return { text: `authentication handshake failed: ${ioText(failure)}`, lasting: false };
    }
    const trouble = tls.insecureSkipVerify ? undefined : certificateTrouble(secure, host, this.#clock.wallMs());
    if (trouble !== undefined) {
      secure.destroy();
      return trouble;
    }
    const greeting = await this.#greet(secure);
    if (greeting === "http2") return undefined;
    const alert = greeting instanceof Error ? alertTrouble(greeting, tls.cert !== undefined) : undefined;
    if (alert !== undefined || !isEnd(greeting)) return alert ?? greetingTrouble(greeting);
    // A server that is stopping does so once; a server that verifies certificates after the handshake, and has no alert
    // for the failure, does so always. The reason a presented certificate is refused may be a revocation list, which
    // can change.
    if (!again) {
      await new Promise<void>((resolve) => this.#clock.after(SECOND_LOOK_MS, resolve));
      return this.securely(tls, true);
    }
    const without = tls.cert === undefined;
    const kind = without ? "closed-without-certificate" : "closed-on-certificate";
    return { text: "the server closes the connection after the TLS handshake", lasting: without, kind };
  }

  async #dial(): Promise<Socket | Trouble> {
    const { path, host, port } = this.#address;
    const where: NetConnectOpts = path === undefined ? { host, port } : { path };
    const socket = connectTcp(where);
    const failure = await this.#until(socket, "connect");
    if (failure === undefined) return socket;
    socket.destroy();
    const to = path === undefined ? `tcp ${hostPort(this.#address)}` : `unix ${path}`;
    const { code } = failure;
    if (code === "ENOTFOUND" || code === "EAI_AGAIN") {
      const text = code === "ENOTFOUND" ? "no such host" : "the name servers do not answer";
      return { text: `dial tcp: lookup ${host}: ${text}`, lasting: false };
    }
    return { text: `dial ${to}: ${code === undefined ? "" : "connect: "}${ioText(failure)}`, lasting: false };
  }

  /** Reads what the other side sends first after the preface. Ends the socket. */
  #greet(socket: Socket): Promise<Greeting> {
    return new Promise((resolve) => {
      let received = Buffer.alloc(0);
      const end = (greeting: Greeting) => {
        timer.cancel();
        socket.destroy();
        resolve(greeting);
      };
      const timer = this.#clock.after(this.#timeoutMs, () => end(new Error("i/o timeout")));
      socket.on("error", end);
      socket.on("close", () => end(new Error("EOF")));
      socket.on("data", (chunk: Buffer) => {
        received = Buffer.concat([received, chunk]);
        if (received.length < FRAME_HEADER_BYTES) return;
        if (received[3] === SETTINGS && received.readUInt32BE(5) === 0) end("http2");
        else end(received.subarray(0, 5).toString() === "HTTP/" ? "http1" : "other");
      });
      socket.write(HELLO);
    });
  }

  async #speaksTls(): Promise<boolean> {
    const socket = await this.#dial();
    if (!isSocket(socket)) return false;
    const secure = connectTls({ socket, rejectUnauthorized: false, ALPNProtocols: ["h2"] });
    const failure = await this.#until(secure, "secureConnect");
    secure.destroy();
    return failure === undefined || alertTrouble(failure, false) !== undefined;
  }

  async #speaksPlainHttp2(): Promise<boolean> {
    const socket = await this.#dial();
    return isSocket(socket) && (await this.#greet(socket)) === "http2";
  }

  /** Undefined once the event fired; otherwise what happened instead. */
  #until(socket: Socket, event: string): Promise<NodeJS.ErrnoException | undefined> {
    return new Promise((resolve) => {
      const end = (outcome: Error | undefined) => {
        timer.cancel();
        // Later errors are ignored, but need a listener.
        socket.off("close", closed);
        resolve(firstOf(outcome));
      };
      const closed = () => end(new Error("EOF"));
      const timer = this.#clock.after(this.#timeoutMs, () => end(new Error("i/o timeout")));
      socket.once(event, () => end(undefined));
      socket.on("error", end);
      socket.once("close", closed);
    });
  }
}

const isEnd = (greeting: Greeting) =>
  greeting instanceof Error &&
  (greeting.message === "EOF" || (greeting as NodeJS.ErrnoException).code === "ECONNRESET");
const isSocket = (value: Socket | Trouble): value is Socket => !("lasting" in value);

function greetingTrouble(greeting: Greeting): Trouble {
  if (greeting instanceof Error) return { text: `error reading server preface: ${ioText(greeting)}`, lasting: false };
  const what = greeting === "http1" ? "HTTP/1" : "something else";
  // A proxy before a restarting server may report that in HTTP/1.
  return { text: `the server speaks ${what} where gRPC needs HTTP/2`, lasting: false };
}

function certificatesOf(tls: TlsOptions) {
  const pem = (bytes: Uint8Array | undefined) => (bytes === undefined ? {} : { value: Buffer.from(bytes) });
  const [ca, cert, key] = [pem(tls.ca ?? systemRoots()), pem(tls.cert), pem(tls.key)];
  return {
    ...(ca.value ? { ca: ca.value } : {}),
    ...(cert.value ? { cert: cert.value } : {}),
    ...(key.value ? { key: key.value } : {}),
  };
}

/** A name with several addresses fails with one error for each. */
function firstOf(error: Error | undefined): NodeJS.ErrnoException | undefined {
  return error instanceof AggregateError ? (error.errors[0] ?? error) : error;
}

const IO_TEXTS: Readonly<Record<string, string>> = {
  ECONNREFUSED: "connection refused",
  ECONNRESET: "connection reset by peer",
  EPIPE: "broken pipe",
  ETIMEDOUT: "connection timed out",
  EHOSTUNREACH: "no route to host",
  ENETUNREACH: "network is unreachable",
  ENOENT: "no such file or directory",
  EACCES: "permission denied",
  ENOTSOCK: "socket operation on non-socket",
};

const ioText = ({ code, message }: NodeJS.ErrnoException) => IO_TEXTS[code ?? ""] ?? message;
