/** Ports for new members: etcd's own where they are free, and those that people know from examples; else any. */
import { createServer } from "node:net";
import { DeployError } from "../common/context.ts";
import type { LocalMember } from "./home.ts";

const FIRST = [2379, 22379, 32379, 42379, 52379];
const PORT_MAX = 65_535;

/** `base` asks for consecutive ports from there on. Throws DeployError when one of these is taken. */
export async function choosePorts(count: number, base: number | undefined): Promise<LocalMember[]> {
  const members: LocalMember[] = [];
  const taken = new Set<number>();
  for (let i = 0; i < count; i++) {
    const first = base === undefined ? FIRST[i] : base + 2 * i;
    if (base !== undefined && base + 2 * i + 1 > PORT_MAX) throw new DeployError(`--port ${base} is too high`);
    const pair = first === undefined ? [] : [first, first + 1];
    const free = (await Promise.all(pair.map(isFree))).every(Boolean) && pair.length > 0;
    if (base !== undefined && !free)
      throw new DeployError(`port ${pair[0]} or ${pair[1]} is taken: leave --port out, and free ones are found`);
    const [clientPort, peerPort] = free ? pair : await anyPorts(taken);
    members.push({ name: `m${i + 1}`, clientPort: clientPort!, peerPort: peerPort! });
    taken.add(clientPort!).add(peerPort!);
  }
  return members;
}

async function anyPorts(taken: ReadonlySet<number>): Promise<number[]> {
  const ports = new Set<number>();
  while (ports.size < 2) {
    const port = await listen(0);
    if (port !== undefined && !taken.has(port)) ports.add(port);
  }
  return [...ports];
}

const isFree = async (port: number): Promise<boolean> => (await listen(port)) !== undefined;

/** The port that was free; undefined when it was not. */
function listen(port: number): Promise<number | undefined> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once("error", () => resolve(undefined));
    server.listen(port, "127.0.0.1", () => {
      const address = server.address();
      server.close(() => resolve(address !== null && typeof address === "object" ? address.port : undefined));
    });
  });
}
