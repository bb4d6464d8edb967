import type { AuthInfo } from "../../auth/auth-info.ts";
import type { Op } from "../log/op.ts";
import type { RequestOf } from "../log/operations.ts";
import type { Applied } from "../log/outcome.ts";
import type { LongApply } from "./long-apply.ts";
import type { ResponseReads } from "./response-reads.ts";

/** Result of one applier call: the complete result, or the beginning of work for many turns. */
export type Progress<O extends Op> = Applied<O> | LongApply<Applied<O>>;

/**
 * How each operation is applied; `index` is its entry's, `user` whose permissions are checked already, except for long transactions. Without `reads` no response is needed. An error of the request
 * is returned; an exception is a fault, or an error of the store or the lessor, which `Applier` translates.
 */
export type Appliers = {
  readonly [O in Op]: (
    request: RequestOf<O>,
    reads: ResponseReads | null,
    index: number,
    user: AuthInfo,
  ) => Progress<O>;
};
