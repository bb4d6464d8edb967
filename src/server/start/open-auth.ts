import { BcryptHasher } from "../../auth/passwords.ts";
import { AuthStore } from "../../auth/store.ts";
import { createTokenProvider } from "../../auth/tokens.ts";
import type { Backend } from "../../mvcc/backend/backend.ts";
import { AUTH_DEFAULTS, type ServerOptions } from "../contract/options.ts";

/** The users in the database, with token provider and password hasher as configured. Throws AuthOptionsError. */
export function openAuth(options: ServerOptions, backend: Backend): AuthStore {
  const { clock, random, disk, logger } = options;
  const { token, tokenTtlMs, bcryptCost } = options.auth ?? AUTH_DEFAULTS;
  return new AuthStore({
    backend,
    logger,
    tokens: createTokenProvider({ spec: token, simpleTtlMs: tokenTtlMs, clock, random, disk, logger }),
    passwords: options.seams?.passwords ?? new BcryptHasher(bcryptCost, random),
  });
}
