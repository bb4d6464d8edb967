import type { Op } from "../log/op.ts";
import type { RequestOf } from "../log/operations.ts";
import type { Applied } from "../log/outcome.ts";
import type { LongApply } from "./long-apply.ts";
import type { ResponseReads } from "./response-reads.ts";

/** What one call of an applier gives: all of it, or the beginning of what takes many turns. */
export type Progress<O extends Op> = Applied<O> | LongApply<Applied<O>>;

/**
 * How each operation is applied; `index` is its entry's. Without `reads` nobody waits for the response. An error of the
 * request is returned; what is thrown is a fault, or an error of the store or the lessor, which `Applier` translates.
 */
export type Appliers = {
  readonly [O in Op]: (request: RequestOf<O>, reads: ResponseReads | null, index: number) => Progress<O>;
};
