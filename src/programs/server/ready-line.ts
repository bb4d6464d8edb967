import type { Environment } from "../../base/systemd.ts";

/**
 * The one line for people at the end of a start: that it serves, where, and what to try. All lines before it are etcd's, for
 * programs that read them; so it is written only for somebody who sits at a terminal or has said `npm start`.
 */
export function readyLine(addresses: readonly string[], env: Environment): string {
  const [address = "", ...more] = addresses;
  const others = more.length === 0 ? "" : ` (and ${more.join(", ")})`;
  return `Ready: etcd serves clients at ${address}${others}. Try: ${exampleFor(address, env)}\n`;
}

export function wantsReadyLine(env: Environment, isTerminal: boolean): boolean {
  return isTerminal || isNpmStart(env);
}

function exampleFor(address: string, env: Environment): string {
  const { protocol, host } = new URL(address);
  // Where npm starts it nobody need have a link to the client's program.
  const etcdctl = isNpmStart(env) ? "bin/etcdctl" : "etcdctl";
  if (protocol === "https:") return `${etcdctl} --endpoints=${address} --cacert=FILE endpoint health`;
  const endpoint = DEFAULT_HOSTS.has(host) ? "" : ` --endpoints=${address}`;
  return `${etcdctl}${endpoint} put greeting hello`;
}

const isNpmStart = (env: Environment): boolean => env["npm_lifecycle_event"] === "start";

/** Where the client looks when it is told nothing. */
const DEFAULT_HOSTS = new Set(["127.0.0.1:2379", "localhost:2379"]);
