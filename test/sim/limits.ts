/**
 * How much members do at a time in some seeds: so little that what is one message or one page with the usual limits, and
 * done before anything can happen, takes many, with whatever happens in between. The choices have a stream of their own.
 */
import type { ServerOptions } from "../../src/server/contract/options.ts";
import { SimRandom } from "./random.ts";

/** The usual limit where one is absent. */
export interface Limits {
  /** Bytes of entries in one message of raft, 0 for one entry, and messages on their way to a follower. */
  readonly raft?: { readonly messageBytesMax: number; readonly inflightMessagesMax: number };
  /** Rows and revisions in a page that is read for watchers that are behind. */
  readonly watchPage?: { readonly entries: number; readonly revisions: number };
}

export function limitsOf(seed: number): Limits {
  const random = SimRandom.of(seed, "limits");
  const raft = { messageBytesMax: random.pick([0, 0, 100]), inflightMessagesMax: random.pick([1, 2, 100]) };
  const watchPage = { entries: random.pick([1, 2, 8]), revisions: random.pick([1, 2, 4]) };
  return {
    ...(random.chance(0.3) ? { raft } : {}),
    ...(random.chance(0.5) ? { watchPage } : {}),
  };
}

export function limitOptions({ raft, watchPage }: Limits = {}): Partial<ServerOptions> {
  return {
    ...(raft === undefined ? {} : { raftLimits: raft }),
    ...(watchPage === undefined
      ? {}
      : {
          watchPage: {
            entriesMax: watchPage.entries,
            revisionsMax: watchPage.revisions,
            bytesMax: 64 * watchPage.entries,
            joinRevisions: 2 * watchPage.entries,
            watchersMax: 2,
          },
        }),
  };
}
