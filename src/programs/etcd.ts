import type { Environment } from "../base/systemd.ts";
import { versionText } from "./server/version.ts";

/**
 * `etcd`: the entry point of the server program. What needs no server (`--version` alone, the proxies) is handled here,
 * so that it takes no longer than Node's start.
 */
export async function main(argv: readonly string[], env: Environment): Promise<number | undefined> {
  const [first] = argv;
  if (argv.length === 1 && (first === "--version" || first === "-version")) {
    process.stdout.write(versionText("etcd"));
    return 0;
  }
  if (first === "gateway" || first === "grpc-proxy") {
    return await (await import("./proxy.ts")).runProxyProgram(argv, env);
  }
  const { runServer } = await import("./server/program.ts");
  return await runServer(argv, env);
}
