/** The commands of etcdctl, under the headings of its help. */
import { helpCommand } from "../base/command-tree.ts";
import { completionCommand } from "../base/completion.ts";
import { describeFlags } from "../base/flags.ts";
import { alarm } from "./commands/alarm.ts";
import { auth } from "./commands/auth.ts";
import { check } from "./commands/check.ts";
import { compaction } from "./commands/compaction.ts";
import { defrag } from "./commands/defrag.ts";
import { del } from "./commands/del.ts";
import { downgrade } from "./commands/downgrade.ts";
import { elect } from "./commands/elect.ts";
import { endpoint } from "./commands/endpoint.ts";
import { get } from "./commands/get.ts";
import { lease } from "./commands/lease.ts";
import { lock } from "./commands/lock.ts";
import { makeMirror } from "./commands/make-mirror.ts";
import { member } from "./commands/member.ts";
import { moveLeader } from "./commands/move-leader.ts";
import { put } from "./commands/put.ts";
import { role } from "./commands/role.ts";
import { snapshot } from "./commands/snapshot.ts";
import { txn } from "./commands/txn.ts";
import { user } from "./commands/user.ts";
import { version } from "./commands/version.ts";
import { watch } from "./commands/watch.ts";
import type { CtlCommand } from "./ctl.ts";
import { badArgs } from "./exit.ts";
import { GLOBAL_FLAGS } from "./global-flags.ts";

const under = (group: string, ...commands: CtlCommand[]) => commands.map((command) => ({ ...command, group }));

const options: CtlCommand = {
  name: "options",
  short: "Lists the options that every command takes",
  run: ({ io }) => io.out(`Every command takes these options:\n\n${describeFlags(GLOBAL_FLAGS)}`),
};

export const PROGRAM: CtlCommand = {
  name: "etcdctl",
  short: "etcdctl reads, writes and administers an etcd cluster.",
  sharedFlags: GLOBAL_FLAGS,
  commands: [
    ...under("Keys and values", compaction, del, get, lease, put, txn, watch),
    ...under("Cluster maintenance", alarm, defrag, downgrade, endpoint, member, moveLeader, snapshot),
    ...under("Concurrency", elect, lock),
    ...under("Authentication", auth, role, user),
    ...under("Utilities", check, completionCommand("etcdctl", badArgs), helpCommand(), makeMirror, options, version),
  ],
};
