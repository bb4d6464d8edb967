/**
 * Batch limits of members in some seeds: so low that one message or page under the usual limits takes many, with other
 * events in between. The choices have their own random stream.
 */
import type { ServerOptions } from "../../src/server/contract/options.ts";
import { SimRandom } from "./random.ts";

/** The usual limit applies where one is absent. */
export interface Limits {
  /** Bytes of entries in one raft message, 0 for one entry, and messages in flight to a follower. */
  readonly raft?: { readonly messageBytesMax: number; readonly inflightMessagesMax: number };
  /** Rows and revisions per page read for unsynced watchers. */
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
