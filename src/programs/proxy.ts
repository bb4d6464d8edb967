import { systemClock } from "../base/clock.ts";
import { systemRandom } from "../base/random.ts";
import { type Environment, systemdNotifier } from "../base/systemd.ts";
import { earlyLog } from "../config/machine/open-log.ts";
import { runProxy } from "../proxy/program.ts";

/** The proxies as a process. A signal ends it at once: a proxy has nothing to save. */
export async function runProxyProgram(argv: readonly string[], env: Environment): Promise<number | undefined> {
  const started = await runProxy({
    args: argv,
    out: (text) => void process.stdout.write(text),
    err: (text) => void process.stderr.write(text),
    logger: earlyLog(systemClock),
    clock: systemClock,
    random: systemRandom,
    systemd: systemdNotifier(env),
  });
  return typeof started === "number" ? started : undefined;
}
