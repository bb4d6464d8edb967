import { formatId } from "../../membership/member.ts";
import type { Message } from "../../proto/raftpb.ts";
import { messageTypeName } from "../../raft/messages.ts";

/** The debug log fields of a message between members. */
export function describeMessage(message: Message): Record<string, string | number | boolean> {
  const { type, from, to, term, index, logTerm, commit, entries, reject } = message;
  return {
    type: messageTypeName(type),
    from: formatId(from),
    to: formatId(to),
    term,
    index,
    "log-term": logTerm,
    commit,
    "num-entries": entries.length,
    ...(reject ? { reject } : {}),
  };
}
