import type { AuthInfo } from "./auth-info.ts";
import type { AuthProblem } from "./problems.ts";

/** Issues tokens to users whose password was checked, and knows their owners. */
export interface TokenProvider {
  enable(): void;
  /** Forgets all tokens. */
  disable(): void;
  invalidateUser(username: string): void;
  /** The random part of the next token: it travels in the log, so that every member makes the same token. */
  newPrefix(): string;
  /** Makes the token for an Authenticate request in the log at `index`. */
  assign(username: string, revision: number, prefix: string, index: number): { readonly token: string } | AuthProblem;
  /** The token's owner, at an auth revision; undefined for an invalid token. */
  info(token: string, revision: number): AuthInfo | undefined;
  /** Whether deciding this takes a signature check. */
  isCostly(token: string): boolean;
  /**
   * Index of the log entry that made the token: a member that has not applied it does not know the token yet. 0 for
   * none.
   */
  indexOf(token: string): number;
}
