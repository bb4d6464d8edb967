/** Password hashes of a cluster in memory: the cheapest that are valid, computed on the spot instead of in threads. */
import { compareSync } from "bcryptjs";
import { BcryptHasher, type PasswordHasher } from "../auth/passwords.ts";
import type { Random } from "../base/random.ts";

const COST_MIN = 4;
const PASSWORD_BYTES_MAX = 72;

export function inlineHasher(random: Random): PasswordHasher {
  const bcrypt = new BcryptHasher(COST_MIN, random);
  return {
    async hash(password) {
      if (Buffer.byteLength(password) > PASSWORD_BYTES_MAX) return "passwordTooLong";
      return { hash: bcrypt.hashNow(password) };
    },
    hashNow: (password) => bcrypt.hashNow(password),
    async matches(password, hash) {
      const text = Buffer.from(hash).toString("latin1");
      return text.startsWith("$2") && compareSync(password, text);
    },
  };
}
