import assert from "node:assert/strict";
import type { Socket } from "node:net";
import { test } from "node:test";
import { HandshakeQueue } from "../../src/rpc/tls/handshake-queue.ts";
import { waitFor } from "../harness/wait.ts";
import { ManualClock } from "./harness.ts";

const socketOf = (remoteAddress: string, name: number): Socket =>
  ({ remoteAddress, name, destroyed: false }) as unknown as Socket;
const nameOf = (socket: Socket): string => `${socket.remoteAddress}${(socket as unknown as { name: number }).name}`;

/** Time advances by `costMs` with each handshake, and only then. */
class WorkClock extends ManualClock {
  readonly turns: string[][] = [[]];

  override defer(callback: () => void): void {
    super.defer(() => {
      this.turns.push([]);
      callback();
    });
  }
}

function queueOf(clock: WorkClock, costMs: number): HandshakeQueue {
  return new HandshakeQueue(clock, (socket) => {
    clock.turns.at(-1)!.push(nameOf(socket));
    process.nextTick(() => clock.advance(costMs));
  });
}

test("a turn starts as many handshakes as fit into a few milliseconds, one from each address in turn", async () => {
  const clock = new WorkClock();
  const queue = queueOf(clock, 2);
  for (let i = 0; i < 4; i++) queue.push(socketOf("a", i));
  queue.push(socketOf("b", 0));
  await waitFor("all have begun", () => clock.turns.flat().length === 5);
  assert.deepEqual(clock.turns, [["a0", "a3"], ["b0", "a2"], ["a1"]]);
});

test("a turn ends even if the clock stands still", async () => {
  const clock = new WorkClock();
  const queue = queueOf(clock, 0);
  for (let i = 0; i < 100; i++) queue.push(socketOf("a", i));
  await waitFor("all have begun", () => clock.turns.flat().length === 100);
  assert.ok(Math.max(...clock.turns.map(({ length }) => length)) <= 16);
});

test("clients that have gone are skipped", async () => {
  const clock = new WorkClock();
  const queue = queueOf(clock, 10);
  const sockets = [0, 1, 2].map((i) => socketOf("a", i));
  for (const socket of sockets) queue.push(socket);
  (sockets[2] as unknown as { destroyed: boolean }).destroyed = true;
  await waitFor("the others have begun", () => clock.turns.flat().length === 2);
  assert.deepEqual(clock.turns.flat(), ["a0", "a1"]);
});
