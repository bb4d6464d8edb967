import type { Environment } from "../../base/systemd.ts";

/**
 * The line for people at the end of a start: that the member serves, where, and what to try. All earlier lines are
 * etcd's, for programs that read them; so this one is written only under `npm start`, not at every
 * terminal: containers and tests of etcd's give a terminal to a program whose log they read.
 */
export function readyLine(addresses: readonly string[], env: Environment): string {
  const [address = "", ...more] = addresses;
  const others = more.length === 0 ? "" : ` (and ${more.join(", ")})`;
  return `Ready: etcd serves clients at ${address}${others}. Try: ${exampleFor(address, env)}\n`;
}

export const wantsReadyLine = (env: Environment): boolean => isNpmStart(env);

function exampleFor(address: string, env: Environment): string {
  const { protocol, host } = new URL(address);
  // Under npm the client program may not be linked.
  const etcdctl = isNpmStart(env) ? "bin/etcdctl" : "etcdctl";
  if (protocol === "https:") return `${etcdctl} --endpoints=${address} --cacert=FILE endpoint health`;
  const endpoint = DEFAULT_HOSTS.has(host) ? "" : ` --endpoints=${address}`;
  return `${etcdctl}${endpoint} put greeting hello`;
}

const isNpmStart = (env: Environment): boolean => env["npm_lifecycle_event"] === "start";

/** The client's default endpoints. */
const DEFAULT_HOSTS = new Set(["127.0.0.1:2379", "localhost:2379"]);
