import type { AuthInfo } from "./auth-info.ts";
import type { AuthProblem } from "./problems.ts";

/** Gives tokens to users who have shown their password, and knows whose they are. */
export interface TokenProvider {
  enable(): void;
  /** Forgets all tokens. */
  disable(): void;
  invalidateUser(username: string): void;
  /** The random part of the next token: it travels in the log, so that every member makes the same token. */
  newPrefix(): string;
  /** Makes the token for an Authenticate request that stands in the log at `index`. */
  assign(username: string, revision: number, prefix: string, index: number): { readonly token: string } | AuthProblem;
  /** Whose token it is, at a revision of the auth store; undefined for one that is not, or no longer, valid. */
  info(token: string, revision: number): AuthInfo | undefined;
  /** Whether it takes a signature to be checked to know. */
  isCostly(token: string): boolean;
  /** Index of the log entry that made the token: before a member has applied it, the token is unknown there. 0 for none. */
  indexOf(token: string): number;
}
