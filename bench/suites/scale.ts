/**
 * A store with many keys (1,000,000 with 256 bytes each by default): fill rate, memory, and the time from a restart
 * until /health is true.
 *
 * VmRSS counts pages of the mapped database file that the kernel may drop at any time; RssAnon is what the process
 * itself allocated. Both are read right after the fill, and again after the restart.
 */
import { readFileSync } from "node:fs";
import { KVService } from "../../src/proto/etcdserverpb.ts";
import { generate } from "../generator.ts";
import type { Measurement, ServerSuite } from "../suite.ts";

const OPS_PER_TXN = 100;

export const scale: ServerSuite = {
  name: "scale",
  what: "1,000,000 keys with 256 bytes each (--keys): fill, memory, restart",
  serverArgs: ["--quota-backend-bytes", String(8 * 2 ** 30)],
  async run(server, settings) {
    const port = Number(server.endpoint.split(":")[1]);
    const shape = { port, connections: 4, concurrency: 2, opsPerTxn: OPS_PER_TXN, valueSize: 256 };
    const fill = await generate({ kind: "fill", ...shape, count: settings.keys / OPS_PER_TXN }, 600);
    const { count } = await server.client.unary(KVService.Range, {
      key: Buffer.from("/bench/"),
      rangeEnd: Buffer.from("/bench0"),
      countOnly: true,
    });
    if (count !== settings.keys) throw new Error(`filled ${settings.keys} keys, but the store counts ${count}`);
    const filled = memory("filled", server.pid);
    await server.kill("SIGTERM");
    const restartMs = await server.start();
    const rate = fill.perSecond * OPS_PER_TXN;
    return [
      { name: "fill, 100 puts a txn", unit: "puts/s", better: "higher", value: rate },
      ...filled,
      { name: "restart", unit: "ms", better: "lower", value: restartMs },
      ...memory("restarted", server.pid),
    ];
  },
};

function memory(when: string, pid: number): Measurement[] {
  const status = readFileSync(`/proc/${pid}/status`, "utf8");
  return ["VmRSS", "RssAnon"].map((field) => ({
    name: `${field} ${when}`,
    unit: "MiB",
    better: "lower",
    value: Number(new RegExp(`${field}:\\s+(\\d+) kB`).exec(status)?.[1]) / 1024,
  }));
}
