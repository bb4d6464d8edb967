import type { Environment } from "../base/systemd.ts";
import { main as ctl } from "../ctl/main.ts";
import { processIo } from "../ctl/process-io.ts";

/** etcdctl as a process. Does not return: what is still under way, such as a lease being kept alive, ends with it. */
export async function main(argv: readonly string[], env: Environment): Promise<never> {
  return process.exit(await ctl(processIo(argv, env)));
}
