/**
 * Calls of clients on Node against one member, with 1 and 100 in flight: this client, `etcd3`, and `@grpc/grpc-js` alone.
 *
 *   node --import tsx bench/client.ts 127.0.0.1:2379 [MILLISECONDS]
 *
 * Prints calls a second, and the processor time of the client for one call.
 */
import { Etcd3 } from "etcd3";
import { Client } from "../src/client/index.ts";
import { connect } from "../src/client/raw.ts";
import { KVService } from "../src/proto/etcdserverpb.ts";

const endpoint = process.argv[2] ?? "127.0.0.1:2379";
const forMs = Number(process.argv[3] ?? 3000);
const value = "v".repeat(256);

interface Subject {
  readonly name: string;
  put(key: string): Promise<unknown>;
  get(key: string): Promise<unknown>;
  close(): void;
}

function subjects(): Subject[] {
  const client = new Client({ endpoints: endpoint });
  const raw = connect(endpoint);
  const etcd3 = new Etcd3({ hosts: endpoint });
  return [
    {
      name: "kvorum/client",
      put: (key) => client.put(key, value),
      get: (key) => client.get(key),
      close: () => client.close(),
    },
    {
      name: "@grpc/grpc-js",
      put: (key) => raw.unary(KVService.Put, { key: Buffer.from(key), value: Buffer.from(value) }),
      get: async (key) => (await raw.unary(KVService.Range, { key: Buffer.from(key) })).kvs[0]?.value.toString(),
      close: () => raw.close(),
    },
    {
      name: "etcd3",
      put: (key) => etcd3.put(key).value(value).exec(),
      get: (key) => etcd3.get(key).string(),
      close: () => etcd3.close(),
    },
  ];
}

for (const { name, put, get, close } of subjects()) {
  for (const [what, call] of [
    ["put", put],
    ["get", get],
  ] as const) {
    for (const inFlight of [1, 100]) {
      await load(call, inFlight, forMs / 5);
      const { perSecond, microseconds } = await load(call, inFlight, forMs);
      console.log(
        `${name.padEnd(16)}${what.padEnd(5)}${String(inFlight).padStart(4)} in flight${perSecond.toFixed(0).padStart(9)}/s${microseconds.toFixed(1).padStart(8)} µs of processor a call`,
      );
    }
  }
  close();
}

async function load(call: (key: string) => Promise<unknown>, inFlight: number, ms: number) {
  const end = performance.now() + ms;
  const cpu = process.cpuUsage();
  const began = performance.now();
  let calls = 0;
  await Promise.all(
    Array.from({ length: inFlight }, async (_, i) => {
      while (performance.now() < end) {
        await call(`bench/${i}`);
        calls++;
      }
    }),
  );
  const { user, system } = process.cpuUsage(cpu);
  return { perSecond: (calls * 1000) / (performance.now() - began), microseconds: (user + system) / calls };
}
