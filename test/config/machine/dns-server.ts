/** A DNS server on 127.0.0.1 that knows a few SRV and A records; every other name does not exist. */
import { createSocket } from "node:dgram";
import { promises as dns } from "node:dns";
import type { TestContext } from "node:test";
import type { SrvResolver } from "../../../src/config/machine/srv.ts";

export interface Records {
  readonly srv?: Readonly<Record<string, readonly { priority?: number; port: number; name: string }[]>>;
  readonly a?: Readonly<Record<string, string>>;
}

/** A resolver that queries a server with these records, over the wire. */
export async function resolverOf(t: TestContext, records: Records): Promise<SrvResolver> {
  const socket = createSocket("udp4");
  socket.on("message", (query, from) => socket.send(answer(query, records), from.port, from.address));
  await new Promise<void>((resolve) => socket.bind(0, "127.0.0.1", resolve));
  t.after(() => socket.close());
  const resolver = new dns.Resolver({ timeout: 500, tries: 1 });
  resolver.setServers([`127.0.0.1:${socket.address().port}`]);
  return {
    srv: (name) => resolver.resolveSrv(name),
    address: async (host) => (await resolver.resolve4(host))[0]!,
  };
}

const TYPE_A = 1;
const TYPE_SRV = 33;
const NO_SUCH_NAME = 3;

function answer(query: Buffer, records: Records): Buffer {
  const { name, end } = readName(query, 12);
  const type = query.readUInt16BE(end);
  const question = query.subarray(12, end + 4);
  const data: Buffer[] = [];
  if (type === TYPE_SRV) {
    for (const { priority = 0, port, name: target } of records.srv?.[name] ?? []) {
      const head = Buffer.alloc(6);
      head.writeUInt16BE(priority, 0);
      head.writeUInt16BE(port, 4);
      data.push(Buffer.concat([head, writeName(target)]));
    }
  }
  const address = records.a?.[name];
  if (type === TYPE_A && address !== undefined) data.push(Buffer.from(address.split(".").map(Number)));
  const header = Buffer.alloc(12);
  query.copy(header, 0, 0, 2);
  header.writeUInt16BE(0x8180 | (data.length === 0 ? NO_SUCH_NAME : 0), 2);
  header.writeUInt16BE(1, 4);
  header.writeUInt16BE(data.length, 6);
  const answers = data.map((bytes) => {
    // A pointer to the query's name, type, class IN, one minute, length.
    const head = Buffer.from([0xc0, 12, 0, type, 0, 1, 0, 0, 0, 60, 0, bytes.length]);
    return Buffer.concat([head, bytes]);
  });
  return Buffer.concat([header, question, ...answers]);
}

function readName(query: Buffer, start: number): { name: string; end: number } {
  const labels: string[] = [];
  let at = start;
  for (let length = query[at++]!; length > 0; length = query[at++]!) {
    labels.push(query.toString("latin1", at, at + length));
    at += length;
  }
  return { name: labels.join("."), end: at };
}

function writeName(name: string): Buffer {
  const labels = name.split(".").map((label) => Buffer.concat([Buffer.of(label.length), Buffer.from(label)]));
  return Buffer.concat([...labels, Buffer.of(0)]);
}
