/**
 * Loads that need more than one repeated body: many keys, transactions, watches and leases. The load process is ours
 * (bench/load), the same for both servers, and checks every answer.
 */

import type { Server } from "../../test/harness/server.ts";
import { generate, measurements } from "../generator.ts";
import type { Measurement, ServerSuite, Settings } from "../suite.ts";

const KEYS = 100_000;

const bounds = (server: Server, settings: Settings) => ({
  port: Number(server.endpoint.split(":")[1]),
  seconds: settings.seconds + settings.warmUpSeconds,
  warmUpSeconds: settings.warmUpSeconds,
});
const patience = (settings: Settings) => settings.seconds + settings.warmUpSeconds + 90;

export const keys: ServerSuite = {
  name: "keys",
  what: `Put and Range over ${KEYS} random keys, 256 bytes`,
  serverArgs: [],
  async run(server, settings) {
    const port = Number(server.endpoint.split(":")[1]);
    const fill = { kind: "fill", port, connections: 4, concurrency: 2, opsPerTxn: 100, valueSize: 256 } as const;
    await generate({ ...fill, count: KEYS / 100 }, 120);
    const out: Measurement[] = [];
    const shape = { ...bounds(server, settings), connections: 10, concurrency: 10, keys: KEYS };
    const puts = await generate({ kind: "put", ...shape, valueSize: 256 }, patience(settings));
    out.push(...measurements("put of many keys 10×10", "req/s", puts));
    for (const serializable of [false, true]) {
      const gets = await generate({ kind: "get", ...shape, serializable }, patience(settings));
      out.push(
        ...measurements(`range of many keys ${serializable ? "serializable" : "linearizable"} 10×10`, "req/s", gets),
      );
    }
    return out;
  },
};

export const txn: ServerSuite = {
  name: "txn",
  what: "Txn as Kubernetes updates an object: mod revision equal, put 1 KiB, else range",
  serverArgs: [],
  async run(server, settings) {
    const shape = { ...bounds(server, settings), keysPerCall: 100, valueSize: 1024 };
    const out: Measurement[] = [];
    for (const [connections, concurrency] of [
      [1, 1],
      [10, 10],
    ] as const) {
      const result = await generate({ kind: "update", ...shape, connections, concurrency }, patience(settings));
      out.push(...measurements(`update txn ${connections}×${concurrency}`, "req/s", result));
    }
    return out;
  },
};

export const watch: ServerSuite = {
  name: "watch",
  what: "Events delivered to watchers of one prefix, 8 puts of 128 bytes in flight",
  serverArgs: [],
  async run(server, settings) {
    const out: Measurement[] = [];
    for (const watchers of [1, 100, 1000]) {
      const shape = {
        port: Number(server.endpoint.split(":")[1]),
        connections: Math.min(10, watchers),
        concurrency: 8,
      };
      // Limits events as well as time, so that draining stays short.
      const count = Math.ceil(3_000_000 / watchers);
      const job = { kind: "watch", ...shape, watchers, valueSize: 128, seconds: settings.seconds, count } as const;
      const result = await generate(job, patience(settings));
      out.push(...measurements(`watch ${watchers}`, "events/s", result));
    }
    return out;
  },
};

export const lease: ServerSuite = {
  name: "lease",
  what: "Keep-alives of 1000 leases, 10 streams with 10 in flight each",
  serverArgs: [],
  async run(server, settings) {
    const shape = { ...bounds(server, settings), connections: 10, concurrency: 10, leases: 1000 };
    const result = await generate({ kind: "keepalive", ...shape }, patience(settings));
    return measurements("keep-alive 10×10", "req/s", result);
  },
};
