/** Configuration changes as messages: the two versions, what kind of transition they ask for, and their text forms. */
import { broken } from "../../base/fatal.ts";
import { EMPTY_BYTES } from "../../base/protobuf.ts";
import {
  ConfChange,
  type ConfChangeSingle,
  ConfChangeTransition,
  ConfChangeType,
  ConfChangeV2,
  type Entry,
  EntryType,
} from "../../proto/raftpb.ts";

/** Version 1 carries one change; version 2 any number and the kind of transition. */
export type AnyConfChange = ConfChange | ConfChangeV2;

export function asV2(change: AnyConfChange): ConfChangeV2 {
  if ("changes" in change) return change;
  return ConfChangeV2.create({
    changes: [{ type: change.type, nodeId: change.nodeId }],
    context: change.context,
  });
}

/**
 * Whether the change goes through joint consensus, and if so, how it is left; undefined for the simple protocol. More
 * than one change, or an explicit transition, makes it joint.
 */
export function entersJoint(change: ConfChangeV2): { readonly autoLeave: boolean } | undefined {
  switch (change.transition) {
    case ConfChangeTransition.ConfChangeTransitionAuto:
      return change.changes.length > 1 ? { autoLeave: true } : undefined;
    case ConfChangeTransition.ConfChangeTransitionJointImplicit:
      return { autoLeave: true };
    case ConfChangeTransition.ConfChangeTransitionJointExplicit:
      return { autoLeave: false };
    default:
      return broken(`unknown transition: ${change.transition}`);
  }
}

/** The empty change leaves a joint configuration. */
export function leavesJoint(change: ConfChangeV2): boolean {
  return change.transition === ConfChangeTransition.ConfChangeTransitionAuto && change.changes.length === 0;
}

/** The change as an entry to propose. `undefined` is the empty change, whose empty payload no size limit refuses. */
export function confChangeEntry(change: AnyConfChange | undefined): Entry {
  if (change === undefined) return { type: EntryType.EntryConfChangeV2, term: 0, index: 0, data: EMPTY_BYTES };
  return "changes" in change
    ? { type: EntryType.EntryConfChangeV2, term: 0, index: 0, data: ConfChangeV2.encode(change) }
    : { type: EntryType.EntryConfChange, term: 0, index: 0, data: ConfChange.encode(change) };
}

/** The change that an entry carries; undefined for a normal entry. Throws ProtobufError for a malformed one. */
export function confChangeOf(entry: Entry): AnyConfChange | undefined {
  if (entry.type === EntryType.EntryConfChange) return ConfChange.decode(entry.data);
  if (entry.type === EntryType.EntryConfChangeV2) return ConfChangeV2.decode(entry.data);
  return undefined;
}

const letters = new Map<string, ConfChangeType>([
  ["v", ConfChangeType.ConfChangeAddNode],
  ["l", ConfChangeType.ConfChangeAddLearnerNode],
  ["r", ConfChangeType.ConfChangeRemoveNode],
  ["u", ConfChangeType.ConfChangeUpdateNode],
]);

/** Reads `v1 l2 r3 u4`: make a voter, make a learner, remove, update. Ids are decimal. Throws SyntaxError. */
export function parseChanges(text: string): ConfChangeSingle[] {
  return text
    .split(/\s+/)
    .filter((token) => token !== "")
    .map((token) => {
      const type = letters.get(token.charAt(0));
      if (type === undefined || !/^.[0-9]+$/.test(token)) throw new SyntaxError(`unknown input: ${token}`);
      return { type, nodeId: BigInt(token.slice(1)) };
    });
}

/** The inverse of parseChanges. */
export function changesToString(changes: readonly ConfChangeSingle[]): string {
  return changes
    .map((change) => {
      for (const [letter, type] of letters) if (type === change.type) return `${letter}${change.nodeId}`;
      return `unknown${change.nodeId}`;
    })
    .join(" ");
}

const typeNames = Object.keys(ConfChangeType);
const transitionNames = Object.keys(ConfChangeTransition);

export function confChangeTypeName(type: ConfChangeType): string {
  return typeNames[type] ?? String(type);
}

export function transitionName(transition: ConfChangeTransition): string {
  return transitionNames[transition] ?? String(transition);
}
