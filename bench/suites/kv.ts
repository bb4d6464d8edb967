/**
 * Put and Range of one key with a value of 256 bytes, as h2load can repeat them: one body for all requests.
 *
 * One key makes the index small on both servers; `keys` measures the same over many. Concurrency is connections ×
 * streams: 1×1 is the latency of a lone client, 10×10 a busy client, 100×10 many clients.
 */
import { KVService, PutRequest, RangeRequest } from "../../src/proto/etcdserverpb.ts";
import { h2load } from "../h2load.ts";
import type { Measurement, ServerSuite } from "../suite.ts";

const shapes = [
  [1, 1],
  [10, 10],
  [100, 10],
] as const;

const key = Buffer.from("/bench/key");

export const put: ServerSuite = {
  name: "put",
  what: "Put of one key, 256 bytes, h2load",
  serverArgs: [],
  async run(server, settings) {
    const request = PutRequest.create({ key, value: Buffer.alloc(256, "v") });
    const out: Measurement[] = [];
    for (const [connections, streams] of shapes) {
      const name = `put ${connections}×${streams}`;
      out.push(
        ...(await h2load(server, settings, {
          name,
          method: KVService.Put,
          request,
          connections,
          streams,
          writes: true,
        })),
      );
    }
    return out;
  },
};

export const range: ServerSuite = {
  name: "range",
  what: "Range of one key, 256 bytes, linearizable and serializable, h2load",
  serverArgs: [],
  async run(server, settings) {
    await server.client.unary(KVService.Put, { key, value: Buffer.alloc(256, "v") });
    const out: Measurement[] = [];
    for (const serializable of [false, true]) {
      for (const [connections, streams] of shapes) {
        const name = `range ${serializable ? "serializable" : "linearizable"} ${connections}×${streams}`;
        const request = RangeRequest.create({ key, serializable });
        const load = { name, method: KVService.Range, request, connections, streams, writes: false };
        out.push(...(await h2load(server, settings, load)));
      }
    }
    return out;
  },
};

/** Kubernetes lists in pages of 500 objects. */
const LIST_LIMIT = 500;

export const list: ServerSuite = {
  name: "list",
  what: "Range of 500 keys with 1 KiB each out of 2000, h2load",
  serverArgs: [],
  async run(server, settings) {
    const value = Buffer.alloc(1024, "v");
    for (let i = 0; i < 4 * LIST_LIMIT; i++) {
      await server.client.unary(KVService.Put, { key: Buffer.from(`/list/${String(i).padStart(6, "0")}`), value });
    }
    const request = RangeRequest.create({
      key: Buffer.from("/list/"),
      rangeEnd: Buffer.from("/list0"),
      limit: LIST_LIMIT,
    });
    const shape = { connections: 10, streams: 1, writes: false };
    return h2load(server, settings, { name: "list of 500 10×1", method: KVService.Range, request, ...shape });
  },
};

export const large: ServerSuite = {
  name: "large",
  what: "Put and Range of one large value, h2load",
  serverArgs: ["--quota-backend-bytes", String(8 * 2 ** 30)],
  async run(server, settings) {
    const out: Measurement[] = [];
    for (const [label, size, connections] of [
      ["64 KiB", 64 * 1024, 10],
      ["1 MiB", 1024 * 1024, 4],
    ] as const) {
      const requestPut = PutRequest.create({ key, value: Buffer.alloc(size, "v") });
      const shape = { connections, streams: 1 };
      const puts = {
        name: `put ${label} ${connections}×1`,
        method: KVService.Put,
        request: requestPut,
        ...shape,
        writes: true,
      };
      out.push(...(await h2load(server, settings, puts)));
      const request = RangeRequest.create({ key });
      const gets = {
        name: `range ${label} ${connections}×1`,
        method: KVService.Range,
        request,
        ...shape,
        writes: false,
      };
      out.push(...(await h2load(server, settings, gets)));
    }
    return out;
  },
};
