/** The scenario commands that drive a group of nodes and print their actions. */
import { ConfChange, ConfChangeTransition, ConfChangeV2, ConfState, MessageType } from "../../../src/proto/raftpb.ts";
import { parseChanges } from "../../../src/raft/confchange/change.ts";
import { describeEntries, describeMessage } from "../../../src/raft/describe.ts";
import { NO_LIMIT } from "../../../src/raft/entry-size.ts";
import { RaftError } from "../../../src/raft/errors.ts";
import { newMessage } from "../../../src/raft/messages.ts";
import { describeProgress } from "../../../src/raft/tracker/progress.ts";
import { Group, type GroupObserver, type Member, type MemberOptions } from "./group.ts";
import { Output } from "./output.ts";
import { type Command, type Handler, valuesOf } from "./scenario.ts";

/** A command with its arguments. It prints to group.output; a RaftError that it returns or throws is printed last. */
type Run = (group: Group, command: Command) => unknown;

const commands: Readonly<Record<string, Run>> = {
  // add-nodes COUNT [voters=(ID,…)] [learners=(ID,…)] [index=INDEX] [term=TERM] [content=TEXT] [SETTING=VALUE]…
  "add-nodes": addNodes,
  // campaign ID
  campaign: (group, command) => memberOf(group, command).node.campaign(),
  // compact ID INDEX: drops the entries up to INDEX, and prints the rest
  compact(group, command) {
    const member = memberOf(group, command);
    member.storage.compact(Number(command.args[1]!.key));
    printLog(group, member);
  },
  // deliver-msgs [ID]… [drop=(ID,…)] [type=TYPE]
  "deliver-msgs": deliverMessages,
  // forget-leader ID
  "forget-leader": (group, command) => memberOf(group, command).node.forgetLeader(),
  // log-level LEVEL
  "log-level": (group, command) => group.output.setLevel(command.args[0]!.key),
  // process-ready ID…, process-append-thread ID…, process-apply-thread ID…
  "process-ready": (group, command) => eachMember(group, command, "handling Ready", (m) => group.processReady(m)),
  "process-append-thread": (group, command) =>
    eachMember(group, command, "processing append thread", (m) => group.processAppend(m)),
  "process-apply-thread": (group, command) =>
    eachMember(group, command, "processing apply thread", (m) => group.processApply(m)),
  // propose ID DATA
  propose: (group, command) => memberOf(group, command).node.propose(Buffer.from(command.args[1]!.key)),
  // propose-conf-change ID [v1=true] [transition=auto|implicit|explicit]; the changes, as `v1 l2 r3 u4`
  "propose-conf-change": proposeConfChange,
  // raft-log ID
  "raft-log": (group, command) => printLog(group, memberOf(group, command)),
  "raft-state": printStates,
  // read-index ID CONTEXT
  "read-index": (group, command) => memberOf(group, command).node.readIndex(Buffer.from(command.args[1]!.key)),
  // report-unreachable ID ID: to the first, about the second
  "report-unreachable"(group, command) {
    const [reporter, reported] = idsOf(command);
    group.member(reporter!).node.reportUnreachable(reported!);
  },
  // report-snapshot ID ID [failed=true]: to the first, about the second
  "report-snapshot"(group, command) {
    const [reporter, reported] = idsOf(command);
    group.member(reporter!).node.reportSnapshot(reported!, valuesOf(command, "failed")[0] !== "true");
  },
  // send-snapshot FROM TO
  "send-snapshot": sendSnapshot,
  // set-randomized-election-timeout ID timeout=TICKS
  "set-randomized-election-timeout"(group, command) {
    memberOf(group, command).node.raft.randomizedElectionTimeout = Number(valuesOf(command, "timeout")[0]);
  },
  // stabilize [ID]… [log-level=LEVEL]
  stabilize,
  // status ID
  status(group, command) {
    const { progress } = memberOf(group, command).node.status();
    for (const [id, pr] of progress) group.output.write(`${id}: ${describeProgress(pr)}\n`);
  },
  // tick-election ID, tick-heartbeat ID
  "tick-election": (group, command) => tick(memberOf(group, command), (member) => member.electionTicks),
  "tick-heartbeat": (group, command) => tick(memberOf(group, command), (member) => member.heartbeatTicks),
  // transfer-leadership from=ID to=ID
  "transfer-leadership"(group, command) {
    const [from, to] = ["from", "to"].map((key) => BigInt(valuesOf(command, key)[0]!));
    group.member(from!).node.transferLeader(to!);
  },
};

export function newInteraction(observer?: GroupObserver): Handler {
  const output = new Output();
  const group = new Group(output, observer);
  return (command) => {
    const run = commands[command.name];
    if (run === undefined) throw new SyntaxError(`line ${command.line}: unknown command ${command.name}`);
    const error = runReporting(run, group, command);
    // Even the quiet level shows errors.
    if (error !== undefined && output.quiet) return error.message;
    if (error !== undefined) output.write(error.message);
    return output.take() || "ok";
  };
}

function runReporting(run: Run, group: Group, command: Command): RaftError | undefined {
  try {
    const result = run(group, command);
    return result instanceof RaftError ? result : undefined;
  } catch (error) {
    if (error instanceof RaftError) return error;
    throw error;
  }
}

function idsOf(command: Command): bigint[] {
  return command.args.filter((arg) => arg.values.length === 0).map((arg) => BigInt(arg.key));
}

function memberOf(group: Group, command: Command): Member {
  return group.member(BigInt(command.args[0]!.key));
}

function eachMember(group: Group, command: Command, title: string, run: (member: Member) => void): void {
  const ids = idsOf(command);
  for (const id of ids) {
    if (ids.length === 1) run(group.member(id));
    else {
      group.output.write(`> ${id} ${title}\n`);
      group.output.indented(() => run(group.member(id)));
    }
  }
}

function addNodes(group: Group, command: Command): void {
  const first = (key: string) => valuesOf(command, key)[0];
  const flag = (key: string) => first(key) === "true";
  const ids = (key: string) => valuesOf(command, key).map(BigInt);
  const options: MemberOptions = {
    asyncStorageWrites: flag("async-storage-writes"),
    preVote: flag("prevote"),
    checkQuorum: flag("checkquorum"),
    disableConfChangeValidation: flag("disable-conf-change-validation"),
    disableProposalForwarding: flag("disable-proposal-forwarding"),
    stepDownOnRemoval: flag("step-down-on-removal"),
    readOnlyOption: first("read-only") === "lease-based" ? "lease-based" : "safe",
    ...numeric("inflight", "inflightMessagesMax"),
    ...numeric("max-committed-size-per-ready", "committedBytesMax"),
    ...numeric("max-size-per-msg", "messageBytesMax"),
    ...numeric("max-uncommitted-size", "uncommittedBytesMax"),
    ...numeric("max-inflight-bytes", "inflightBytesMax"),
  };
  const index = Number(first("index") ?? 0);
  const start = {
    index,
    term: Number(first("term") ?? 0),
    content: Buffer.from(first("content") ?? ""),
    confState: ConfState.create({ voters: ids("voters"), learners: ids("learners") }),
  };
  for (let i = 0; i < Number(command.args[0]!.key); i++) group.add(options, index > 0 ? start : undefined);

  function numeric(key: string, setting: keyof MemberOptions): MemberOptions {
    const value = first(key);
    return value === undefined ? {} : { [setting]: Number(value) };
  }
}

function deliverMessages(group: Group, command: Command): void {
  const typeName = valuesOf(command, "type")[0] as keyof typeof MessageType | undefined;
  const type = typeName === undefined ? undefined : MessageType[typeName];
  let count = 0;
  for (const arg of command.args) {
    if (arg.values.length === 0) count += group.deliver(BigInt(arg.key), type);
    else if (arg.key === "drop") for (const id of arg.values) count += group.deliver(BigInt(id), type, true);
  }
  if (count === 0) group.output.write("no messages\n");
}

const transitions = new Map<string, ConfChangeTransition>([
  ["auto", ConfChangeTransition.ConfChangeTransitionAuto],
  ["implicit", ConfChangeTransition.ConfChangeTransitionJointImplicit],
  ["explicit", ConfChangeTransition.ConfChangeTransitionJointExplicit],
]);

function proposeConfChange(group: Group, command: Command): RaftError | undefined {
  const changes = parseChanges(command.input);
  const transition = transitions.get(valuesOf(command, "transition")[0] ?? "auto")!;
  const { node } = memberOf(group, command);
  return valuesOf(command, "v1")[0] === "true"
    ? node.proposeConfChange(ConfChange.create(changes[0]))
    : node.proposeConfChange(ConfChangeV2.create({ transition, changes }));
}

function printLog(group: Group, { storage }: Member): void {
  const [first, last] = [storage.firstIndex(), storage.lastIndex()];
  group.output.write(
    last < first
      ? `log is empty: first index=${first}, last index=${last}`
      : describeEntries(storage.entries(first, last + 1, NO_LIMIT)),
  );
}

function printStates(group: Group): void {
  for (const { node } of group.members) {
    const { id, state, term, lead, config } = node.status();
    const role = config.voters.has(id) ? "(Voter)" : "(Non-Voter)";
    group.output.write(`${id}: ${state} ${role} Term:${term} Lead:${lead}\n`);
  }
}

function sendSnapshot(group: Group, command: Command): void {
  const [from, to] = idsOf(command);
  const { node, storage } = group.member(from!);
  const message = newMessage(MessageType.MsgSnap, to!, from!, node.term);
  message.snapshot = storage.snapshot();
  group.messages.push(message);
  group.output.write(describeMessage(message));
}

function stabilize(group: Group, command: Command): void {
  const { output } = group;
  const { level } = output;
  const ids = idsOf(command);
  const quieter = valuesOf(command, "log-level")[0];
  if (quieter !== undefined) output.setLevel(quieter);
  group.stabilize(ids.length > 0 ? ids : group.members.map(({ node }) => node.id));
  output.setLevel(level);
}

function tick(member: Member, ticks: (member: Member) => number): void {
  for (let i = 0; i < ticks(member); i++) member.node.tick();
}
