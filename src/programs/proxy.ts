import { systemClock } from "../base/clock.ts";
import { createLogger } from "../base/log-logger.ts";
import { DescriptorSink } from "../base/log-sink.ts";
import { systemRandom } from "../base/random.ts";
import { type Environment, systemdNotifier } from "../base/systemd.ts";
import { runProxy } from "../proxy/program.ts";

/** The proxies as a process. A signal ends it at once: a proxy has nothing to save. */
export async function runProxyProgram(argv: readonly string[], env: Environment): Promise<number | undefined> {
  const started = await runProxy({
    args: argv,
    out: (text) => void process.stdout.write(text),
    err: (text) => void process.stderr.write(text),
    logger: createLogger({
      level: argv.includes("--debug") ? "debug" : "info",
      format: "json",
      sinks: [new DescriptorSink(2)],
      clock: systemClock,
      callers: true,
    }),
    clock: systemClock,
    random: systemRandom,
    systemd: systemdNotifier(env),
  });
  return typeof started === "number" ? started : undefined;
}
