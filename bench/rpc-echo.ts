/**
 * An echo server on rpc/ alone, to measure the transport without the store:
 *
 *   node --import tsx bench/rpc-echo.ts 5000 &
 *   (printf '\0\0\0\1\0'; head -c 256 /dev/zero) > body
 *   h2load -n 1000000 -c 10 -m 10 -d body -H 'content-type: application/grpc' -H 'te: trailers' \
 *     http://127.0.0.1:5000/kvorum.Echo/Unary
 *
 * Paths: /kvorum.Echo/Unary answers at once, /kvorum.Echo/Deferred with all others of its turn, /kvorum.Echo/Stream each
 * message on its stream.
 */
import { createServer } from "node:net";
import { systemClock } from "../src/base/clock.ts";
import { nullLogger } from "../src/base/log.ts";
import type { UnaryCall } from "../src/rpc/contract.ts";
import { RPC_DEFAULTS } from "../src/rpc/options.ts";
import { RpcServer } from "../src/rpc/server.ts";

const rpc = new RpcServer({ ...RPC_DEFAULTS, clock: systemClock, logger: nullLogger });
rpc.unary("/kvorum.Echo/Unary", (call) => call.respond(call.message));

let batch: UnaryCall[] = [];
rpc.unary("/kvorum.Echo/Deferred", (call) => {
  if (batch.push(call) === 1) systemClock.defer(answerBatch);
});
function answerBatch(): void {
  const calls = batch;
  batch = [];
  for (const call of calls) call.respond(call.message);
}

rpc.stream("/kvorum.Echo/Stream", (call) => {
  call.onMessage = (message) => {
    if (!call.send(message)) call.pauseReading();
  };
  call.onDrain = () => call.resumeReading();
  call.onHalfClose = () => call.end();
});

const server = createServer((socket) => rpc.handleConnection(socket));
server.listen(Number(process.argv[2] ?? 0), "127.0.0.1", () => console.log("listening", server.address()));
