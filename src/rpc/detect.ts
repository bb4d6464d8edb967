/** Distinguishes HTTP/2 and HTTP/1 by a connection's first bytes, so that one port serves both. */
import { METHODS } from "node:http";
import type { Clock } from "../base/clock.ts";
import type { RpcSocket } from "./contract.ts";
import { PREFACE } from "./protocol.ts";

/** A client that has not sent these bytes by then is disconnected. */
const FIRST_BYTES_MS = 10_000;

/**
 * Calls `decided` once: "http2" with what follows the preface, "http1" with all bytes read, or "gone" when the client
 * left, sent nothing in time, or speaks neither. The socket is paused only for "http1".
 */
export function detectProtocol(
  clock: Clock,
  socket: RpcSocket,
  decided: (protocol: "http2" | "http1" | "gone", head: Buffer) => void,
): void {
  let head: Buffer = NO_BYTES;
  const timer = clock.after(FIRST_BYTES_MS, () => finish("gone"));
  const gone = (): void => finish("gone");

  function finish(protocol: "http2" | "http1" | "gone"): void {
    timer.cancel();
    socket.off("data", onData);
    socket.off("end", gone);
    socket.off("close", gone);
    if (protocol === "http1") socket.pause();
    decided(protocol, protocol === "http2" ? head.subarray(PREFACE.length) : head);
  }

  function onData(chunk: Buffer): void {
    head = head.length === 0 ? chunk : Buffer.concat([head, chunk]);
    const compared = Math.min(head.length, PREFACE.length);
    if (head.compare(PREFACE, 0, compared, 0, compared) !== 0) finish(beginsMethod(head) ? "http1" : "gone");
    else if (compared === PREFACE.length) finish("http2");
  }

  socket.on("data", onData);
  socket.on("end", gone);
  socket.on("close", gone);
}

const NO_BYTES = Buffer.alloc(0);

const METHOD_STARTS = METHODS.map((method) => Buffer.from(`${method} `));

/** Whether the bytes so far can begin an HTTP/1 request line. */
function beginsMethod(head: Buffer): boolean {
  return METHOD_STARTS.some((start) => {
    const compared = Math.min(head.length, start.length);
    return head.compare(start, 0, compared, 0, compared) === 0;
  });
}
