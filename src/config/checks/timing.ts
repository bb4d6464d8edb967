import { ConfigError } from "../errors.ts";
import { boundOf } from "../settings/definitions.ts";

/** Consistency of raft's times. Throws `ConfigError` of kind `verify` with etcd's texts. */
export function checkTiming(tickMs: number, electionMs: number): void {
  const longest = boundOf("election-timeout", "max");
  if (tickMs === 0) fail(`--heartbeat-interval must be >0 (set to ${tickMs}ms)`);
  if (electionMs === 0) fail(`--election-timeout must be >0 (set to ${electionMs}ms)`);
  if (5 * tickMs > electionMs) {
    fail(`--election-timeout[${electionMs}ms] should be at least as 5 times as --heartbeat-interval[${tickMs}ms]`);
  }
  if (electionMs > longest) {
    fail(`--election-timeout[${electionMs}ms] is too long, and should be set less than ${longest}ms`);
  }
}

function fail(why: string): never {
  throw new ConfigError("verify", why);
}
