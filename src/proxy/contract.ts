/** What the proxies share: the process they run in, and how a start fails. */
import type { Clock } from "../base/clock.ts";
import type { Command } from "../base/command-tree.ts";
import { KvorumError } from "../base/errors.ts";
import type { Logger } from "../base/log.ts";
import type { Random } from "../base/random.ts";
import type { SystemdNotifier } from "../base/systemd.ts";

/** What a proxy needs from its process. */
export interface ProxyIo {
  /** The arguments after the program's name. */
  readonly args: readonly string[];
  out(text: string): void;
  err(text: string): void;
  readonly logger: Logger;
  readonly clock: Clock;
  readonly random: Random;
  readonly systemd: SystemdNotifier;
}

/** A proxy that runs until it is closed. */
export interface RunningProxy {
  /** `host:port` of its listener. */
  readonly address: string;
  /** Ends the listener and all connections. */
  close(): Promise<void>;
}

/** A start that failed: prints `message` and exits with 1. */
export class ProxyError extends KvorumError {
  override name = "ProxyError";
  readonly code = "ERR_PROXY";
}

/** The proxy's io, and what it started. */
export interface ProxyContext {
  readonly io: ProxyIo;
  running: RunningProxy | undefined;
}

export type ProxyCommand = Command<ProxyContext>;
