/**
 * Text forms of messages, entries and states, as etcd prints them: for logs, for people, and for the scenarios, which
 * compare them literally.
 */
import { ProtobufError } from "../base/protobuf.ts";
import { ConfState, type Entry, EntryType, type HardState, type Message, type Snapshot } from "../proto/raftpb.ts";
import {
  type AnyConfChange,
  asV2,
  changesToString,
  confChangeOf,
  confChangeTypeName,
  transitionName,
} from "./confchange/change.ts";
import { hex } from "./logger.ts";
import { LOCAL_APPEND_THREAD, LOCAL_APPLY_THREAD, messageTypeName, NONE } from "./messages.ts";
import type { Ready, SoftState } from "./ready.ts";
import type { Status } from "./status.ts";

/** Makes the payload of a normal entry readable. The default quotes it. */
export type EntryFormatter = (data: Uint8Array) => string;

export function describeReady(ready: Ready, format: EntryFormatter = quote): string {
  let text = "";
  if (ready.softState !== undefined) text += `${describeSoftState(ready.softState)}\n`;
  if (ready.hardState !== undefined) text += `HardState ${describeHardState(ready.hardState)}\n`;
  if (ready.readStates.length > 0) {
    const states = ready.readStates.map(({ index, requestCtx }) => `{${index} [${requestCtx.join(" ")}]}`);
    text += `ReadStates [${states.join(" ")}]\n`;
  }
  if (ready.entries.length > 0) text += `Entries:\n${describeEntries(ready.entries, format)}`;
  if (ready.snapshot !== undefined) text += `Snapshot ${describeSnapshot(ready.snapshot)}\n`;
  if (ready.committedEntries.length > 0) {
    text += `CommittedEntries:\n${describeEntries(ready.committedEntries, format)}`;
  }
  if (ready.messages.length > 0) {
    text += `Messages:\n${ready.messages.map((message) => `${describeMessage(message, format)}\n`).join("")}`;
  }
  return text === "" ? "<empty Ready>" : `Ready MustSync=${ready.mustSync}:\n${text}`;
}

export function describeMessage(message: Message, format: EntryFormatter = quote, indent = ""): string {
  const { type, from, to, entries, snapshot, responses } = message;
  let text =
    `${indent}${describeTarget(from)}->${describeTarget(to)} ${messageTypeName(type)} ` +
    `Term:${message.term} Log:${message.logTerm}/${message.index}`;
  if (message.reject) text += ` Rejected (Hint: ${message.rejectHint})`;
  if (message.commit !== 0) text += ` Commit:${message.commit}`;
  if (message.vote !== NONE) text += ` Vote:${message.vote}`;
  if (entries.length === 1) text += ` Entries:[${describeEntry(entries[0]!, format)}]`;
  else if (entries.length > 1) {
    const lines = entries.map((entry) => `\n${indent}  ${describeEntry(entry, format)}`);
    text += ` Entries:[${lines.join("")}\n${indent}]`;
  }
  if ((snapshot?.metadata?.index ?? 0) !== 0) text += `\n${indent}  Snapshot: ${describeSnapshot(snapshot!)}`;
  if (responses.length > 0) {
    const lines = responses.map((response) => `\n${describeMessage(response, format, `${indent}  `)}`);
    text += ` Responses:[${lines.join("")}\n${indent}]`;
  }
  return text;
}

function describeTarget(id: bigint): string {
  if (id === NONE) return "None";
  if (id === LOCAL_APPEND_THREAD) return "AppendThread";
  if (id === LOCAL_APPLY_THREAD) return "ApplyThread";
  return hex(id);
}

/** One line for each entry. */
export function describeEntries(entries: readonly Entry[], format: EntryFormatter = quote): string {
  return entries.map((entry) => `${describeEntry(entry, format)}\n`).join("");
}

const entryTypeNames = Object.keys(EntryType);

export function describeEntry(entry: Entry, format: EntryFormatter = quote): string {
  const payload = describePayload(entry, format);
  return `${entry.term}/${entry.index} ${entryTypeNames[entry.type]}${payload === "" ? "" : ` ${payload}`}`;
}

function describePayload(entry: Entry, format: EntryFormatter): string {
  try {
    const change = confChangeOf(entry);
    return change === undefined ? format(entry.data) : changesToString(asV2(change).changes);
  } catch (error) {
    if (error instanceof ProtobufError) return error.message;
    throw error;
  }
}

function describeHardState(state: HardState): string {
  const vote = state.vote === NONE ? "" : ` Vote:${state.vote}`;
  return `Term:${state.term}${vote} Commit:${state.commit}`;
}

function describeSoftState(state: SoftState): string {
  return `Lead:${state.lead} State:${state.state}`;
}

export function describeConfState(state: ConfState): string {
  const list = (ids: readonly bigint[]) => `[${ids.join(" ")}]`;
  return (
    `Voters:${list(state.voters)} VotersOutgoing:${list(state.votersOutgoing)} ` +
    `Learners:${list(state.learners)} LearnersNext:${list(state.learnersNext)} AutoLeave:${state.autoLeave}`
  );
}

function describeSnapshot(snapshot: Snapshot): string {
  const { index, term, confState } = snapshot.metadata ?? { index: 0, term: 0, confState: undefined };
  return `Index:${index} Term:${term} ConfState:${describeConfState(confState ?? ConfState.create())}`;
}

export function describeConfChange(change: AnyConfChange): string {
  const { transition, changes, context } = asV2(change);
  let text = `transition:${transitionName(transition)}`;
  for (const { type, nodeId } of changes) text += ` changes:{type:${confChangeTypeName(type)} node_id:${nodeId}}`;
  return context.length > 0 ? `${text} context:${quote(context)}` : text;
}

/** The fields that etcd publishes as `raft.status`. Source: etcd-io/raft `status.go`, MarshalJSON. */
export function statusFields(status: Status): Record<string, unknown> {
  const progress: Record<string, unknown> = {};
  for (const [id, { match, next, state }] of status.progress) progress[hex(id)] = { match, next, state };
  return {
    id: hex(status.id),
    term: status.term,
    vote: hex(status.vote),
    commit: status.commit,
    lead: hex(status.lead),
    raftState: status.state,
    applied: status.applied,
    progress,
    leadtransferee: hex(status.leadTransferee),
  };
}

const escapes = new Map<number, string>([
  [0x07, "\\a"],
  [0x08, "\\b"],
  [0x09, "\\t"],
  [0x0a, "\\n"],
  [0x0b, "\\v"],
  [0x0c, "\\f"],
  [0x0d, "\\r"],
  [0x22, '\\"'],
  [0x5c, "\\\\"],
]);
const printable = /^[\p{L}\p{M}\p{N}\p{P}\p{S} ]$/u;

/** Bytes as a quoted string: printable UTF-8 as it is, the rest escaped as Go's %q does. */
export function quote(data: Uint8Array): string {
  let text = "";
  for (let at = 0; at < data.length; ) {
    const length = sequenceLength(data, at);
    if (length === 0) {
      text += `\\x${data[at]!.toString(16).padStart(2, "0")}`;
      at++;
      continue;
    }
    const char = Buffer.from(data.buffer, data.byteOffset + at, length).toString();
    const code = char.codePointAt(0)!;
    at += length;
    if (escapes.has(code)) text += escapes.get(code)!;
    else if (printable.test(char)) text += char;
    else if (code < 0x80) text += `\\x${code.toString(16).padStart(2, "0")}`;
    else if (code < 0x10000) text += `\\u${code.toString(16).padStart(4, "0")}`;
    else text += `\\U${code.toString(16).padStart(8, "0")}`;
  }
  return `"${text}"`;
}

/** Length of the well-formed UTF-8 sequence at an offset; 0 if there is none. */
function sequenceLength(data: Uint8Array, at: number): number {
  const first = data[at]!;
  if (first < 0x80) return 1;
  const length = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
  if (at + length > data.length) return 0;
  // A malformed sequence decodes to the replacement character and does not encode back to itself.
  const bytes = Buffer.from(data.buffer, data.byteOffset + at, length);
  const text = bytes.toString();
  return [...text].length === 1 && Buffer.from(text).equals(bytes) ? length : 0;
}
