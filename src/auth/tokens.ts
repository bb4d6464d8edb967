import { resolve } from "node:path";
import type { Clock } from "../base/clock.ts";
import type { Disk } from "../base/disk.ts";
import type { Logger } from "../base/log.ts";
import type { Random } from "../base/random.ts";
import { JwtTokens } from "./jwt.ts";
import { readJwtOptions } from "./jwt-options.ts";
import { AuthOptionsError } from "./problems.ts";
import { SimpleTokens } from "./simple-tokens.ts";
import type { TokenProvider } from "./token-provider.ts";

export interface TokenOptions {
  /** `--auth-token`: a type, then its options as `name=value`. */
  readonly spec: string;
  /** How long an unused simple token lives; 0 is the default of five minutes. */
  readonly simpleTtlMs: number;
  readonly clock: Clock;
  readonly random: Random;
  readonly disk: Disk;
  readonly logger: Logger;
}

/**
 * The provider selected by `--auth-token`. Throws AuthOptionsError. Source: etcd `server/auth/store.go`,
 * NewTokenProvider.
 */
export function createTokenProvider(options: TokenOptions): TokenProvider {
  const { logger, disk } = options;
  const { type, values } = parseSpec(options.spec, logger);
  switch (type) {
    case "simple":
      logger.warn("simple token is not cryptographically signed");
      return new SimpleTokens(options);
    case "jwt":
      return new JwtTokens({
        options: readJwtOptions(values, (path) => disk.readFile(resolve(path)), logger),
        clock: options.clock,
        logger,
      });
    case "":
      return noTokens;
    default: {
      const error = new AuthOptionsError("auth: invalid auth options");
      logger.warn("unknown token type", { type, error });
      throw error;
    }
  }
}

function parseSpec(spec: string, logger: Logger): { type: string; values: Map<string, string> } {
  const [type = "", ...options] = spec.split(",");
  const values = new Map<string, string>();
  for (const option of options) {
    const pair = option.split("=");
    const [name = "", value = ""] = pair;
    if (pair.length === 2 && !values.has(name)) {
      values.set(name, value);
      continue;
    }
    logger.error(
      "invalid token option",
      pair.length === 2 ? { option: spec, "duplicate-parameter": name } : { option: spec },
    );
    throw new AuthOptionsError("auth: invalid auth options");
  }
  return { type, values };
}

/** `--auth-token=`: only client certificates identify users. */
const noTokens: TokenProvider = {
  enable() {},
  disable() {},
  invalidateUser() {},
  newPrefix: () => "",
  assign: () => "authFailed",
  info: () => undefined,
  isCostly: () => false,
  indexOf: () => 0,
};
