import type { Environment } from "../base/systemd.ts";
import { versionText } from "./server/version.ts";

/**
 * `etcd`: the entry of the server program. What needs no server (`--version` on its own, the proxies) is answered here,
 * so that it takes no longer than Node takes to start.
 */
export async function main(argv: readonly string[], env: Environment): Promise<number | undefined> {
  const [first] = argv;
  if (argv.length === 1 && (first === "--version" || first === "-version")) {
    process.stdout.write(versionText("etcd"));
    return 0;
  }
  if (first === "gateway" || first === "grpc-proxy") {
    process.stderr.write(`etcd ${first} is not built yet in this version of kvorum, see docs/differences.md\n`);
    return 2;
  }
  const { runServer } = await import("./server/program.ts");
  return await runServer(argv, env);
}
