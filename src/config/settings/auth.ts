import { setting } from "./definition.ts";
import { text, uint } from "./kinds.ts";

/** Settings for users and tokens. */
export const authSettings = {
  "auth-token": setting(text, {
    field: "auth.token",
    default: "simple",
    help: "Kind of the tokens that users get, with options: 'simple', or 'jwt,pub-key=…,priv-key=…,sign-method=…,ttl=…,revision=…'. See docs/security.md for the last.",
  }),
  "bcrypt-cost": setting(uint, {
    field: "auth.bcryptCost",
    default: "10",
    bounds: { min: 4, max: 31 },
    help: "Cost of hashing passwords with bcrypt, 4 to 31.",
  }),
  "auth-token-ttl": setting(uint, {
    field: "auth.tokenTtlMs",
    default: "300",
    times: 1000,
    help: "Seconds that a simple token stays valid without being used.",
  }),
};
