import type { Environment } from "../base/systemd.ts";
import { main as ctl } from "../ctl/main.ts";
import { flushOutput, processIo } from "../ctl/process-io.ts";

/** etcdctl as a process. Does not return: work in progress, such as keeping a lease alive, ends with it. */
export async function main(argv: readonly string[], env: Environment): Promise<never> {
  // Node's developer warnings, such as the one about TLS to an IP address, are not for users.
  process.noDeprecation = true;
  const code = await ctl(processIo(argv, env));
  await flushOutput();
  return process.exit(code);
}
