import type { Environment } from "../base/systemd.ts";
import { main as ctl } from "../ctl/main.ts";
import { flushOutput, processIo } from "../ctl/process-io.ts";

/** etcdctl as a process. Does not return: what is still under way, such as a lease being kept alive, ends with it. */
export async function main(argv: readonly string[], env: Environment): Promise<never> {
  // Node's notices for developers, such as the one about TLS to an IP address, do not belong among what users read.
  process.noDeprecation = true;
  const code = await ctl(processIo(argv, env));
  await flushOutput();
  return process.exit(code);
}
