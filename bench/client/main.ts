/**
 * Calls of clients on Node against one member, with 1 and 100 in flight: this client, `etcd3`, and `@grpc/grpc-js` alone.
 *
 *   npm run bench -- client [--ms N]  milliseconds of each row (3000)
 *     --stock PATH                    the member is this program; ours when absent. Either writes without fsync
 *     --endpoint HOST:PORT            a member that runs already
 *     --also PROGRAM                  prints the rows of another program too, which is called with the endpoint
 *
 * Prints calls a second, and the processor time of the client for one call.
 */
import { spawnSync } from "node:child_process";
import { Etcd3 } from "etcd3";
import { Client } from "../../src/client/index.ts";
import { connect } from "../../src/client/raw.ts";
import { KVService } from "../../src/proto/etcdserverpb.ts";
import { commandLine } from "../../test/harness/command-line.ts";
import { ourEtcd } from "../../test/harness/programs.ts";
import { startServer } from "../../test/harness/server.ts";

const value = "v".repeat(256);

export async function clients(args: readonly string[]): Promise<void> {
  const options = commandLine({ ms: "number", stock: "text", endpoint: "text", also: "text" }, args);
  const stock = options.text("stock");
  const given = options.text("endpoint");
  const server =
    given === undefined
      ? await startServer(stock === undefined ? ourEtcd() : { file: stock, args: [] }, { args: ["--unsafe-no-fsync"] })
      : undefined;
  try {
    const endpoint = server?.endpoint ?? given!;
    for (const subject of subjects(endpoint)) await measure(subject, options.number("ms", 3000));
    const also = options.text("also");
    if (also !== undefined) spawnSync(also, [endpoint], { stdio: "inherit" });
  } finally {
    await server?.close();
  }
}

interface Subject {
  readonly name: string;
  put(key: string): Promise<unknown>;
  get(key: string): Promise<unknown>;
  close(): void;
}

function subjects(endpoint: string): Subject[] {
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

async function measure({ name, put, get, close }: Subject, forMs: number): Promise<void> {
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
