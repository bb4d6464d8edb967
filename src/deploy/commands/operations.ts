/** `kvorum cluster restart`, `scale`, `replace` and the other operations on a cluster that runs: from flags to an operation. */
import { resolve } from "node:path";
import type { Flag } from "../../base/flags.ts";
import { type Context, type DeployCommand, DeployError, type DeployInvocation } from "../common/context.ts";
import { FORMAT, INVENTORY_FILE, isJson } from "../common/flags.ts";
import { readInventory } from "../inventory/inventory.ts";
import { repair, replace, scale } from "../operations/members.ts";
import { recover } from "../operations/recover.ts";
import { changeProgram, restart, set } from "../operations/rolling.ts";
import { rotateAuthority, rotateCertificates } from "../operations/rotate.ts";
import { withSnapshot } from "../operations/snapshot.ts";
import type { Tools } from "../operations/tools.ts";
import { defragment, destroy, moveLeader } from "../operations/upkeep.ts";
import type { Move } from "../operations/versions.ts";
import { logPath, readProgress, removeProgress } from "../steps/record.ts";
import { carryOut, type Operation } from "../steps/run.ts";

const SHARED: readonly Flag[] = [
  INVENTORY_FILE,
  { name: "dry-run", kind: "bool", value: false, usage: "say the steps, and do nothing" },
  FORMAT,
];
const CONFIRM: Flag = {
  name: "confirm",
  kind: "string",
  value: "",
  usage: "name of the cluster, in place of typing it in",
};
const FREE_PERCENT = 30;
/** What touches all members or their data. The others change nothing that a restart does not bring back. */
const RISKY = new Set(["downgrade", "replace", "rotate-ca", "scale", "switch-engine", "upgrade"]);
const SKIP_SNAPSHOT: Flag = {
  name: "skip-snapshot",
  kind: "bool",
  value: false,
  usage: "do not save a snapshot beside the inventory before it begins",
};

const REPEAT = `It says its steps before it takes them, looks at the cluster's health between them, and refuses what would cost the majority
or data. Interrupted anywhere, repeat the command: it goes on where it was. What was done is in a log beside the inventory.`;

export const operationCommands: readonly DeployCommand[] = [
  operation(
    "restart",
    "[NAME...]",
    "Restarts all members, or those named, one by one, the leader last",
    [],
    (tools, { args }) => restart(tools, args),
  ),
  operation(
    "set",
    "NAME=VALUE...",
    "Changes settings of etcd in the inventory, and restarts the members one by one",
    [],
    (tools, { args }) => set(tools, some(args, "set needs settings, such as election-timeout=2000")),
  ),
  program("upgrade", "Goes to a newer version, member by member, followers first"),
  program("downgrade", "Goes back to an older version, one minor version at most, member by member"),
  program("switch-engine", "Goes from stock etcd to kvorum or back, with the same data, member by member"),
  operation(
    "scale",
    "",
    "Adds members as learners that get a vote when they have caught up, and removes members",
    [
      {
        name: "add",
        kind: "strings",
        value: [],
        usage: "NAME=ADDRESS of a new member, with =SSH-TARGET behind if ssh needs that",
      },
      { name: "remove", kind: "strings", value: [], usage: "name of a member" },
    ],
    (tools, { flags, args }) => {
      none(args, "scale");
      return scale(tools, flags.strings("add").map(newMember), flags.strings("remove"));
    },
  ),
  operation(
    "replace",
    "NAME",
    "Gives a member a new host, or its own host new data",
    [
      { name: "address", kind: "string", value: "", usage: "address of the new host; the old one when absent" },
      { name: "ssh", kind: "string", value: "", usage: "how ssh reaches the new host; its address when absent" },
    ],
    (tools, { flags, args }) => {
      const name = one(args, "replace");
      const member = readInventory(tools.path).members.find((each) => each.name === name);
      const address = flags.string("address") || (member?.address ?? "");
      const ssh = flags.string("ssh");
      return replace(tools, name, { address, ...(ssh === "" ? {} : { ssh }) });
    },
  ),
  operation(
    "repair",
    "NAME",
    "Gives a member whose data is damaged its data again, from the others",
    [],
    (tools, { args }) => repair(tools, one(args, "repair")),
  ),
  operation("rotate-certs", "", "Makes all certificates again; no member is restarted", [], (tools, { args }) => {
    none(args, "rotate-certs");
    return rotateCertificates(tools);
  }),
  operation(
    "rotate-ca",
    "",
    "Puts a new authority in the old one's place, while the cluster serves",
    [],
    (tools, { args }) => {
      none(args, "rotate-ca");
      return rotateAuthority(tools);
    },
  ),
  operation(
    "defrag",
    "",
    "Defragments databases with much free space, one by one, the leader's last",
    [{ name: "free-percent", kind: "uint", value: FREE_PERCENT, usage: "part of a database that must be free for it" }],
    (tools, { flags, args }) => {
      none(args, "defrag");
      return defragment(tools, flags.number("free-percent"));
    },
  ),
  operation(
    "move-leader",
    "[NAME]",
    "Makes another member lead: the one named, or the one that is furthest",
    [],
    (tools, { args }) => {
      if (args.length > 1) throw new DeployError(`move-leader takes one name, not ${args.join(" ")}`);
      return moveLeader(tools, args[0]);
    },
  ),
  operation(
    "recover",
    "",
    "Brings a cluster that has lost its majority for good back from the best member that is left",
    [
      CONFIRM,
      {
        name: "from",
        kind: "string",
        value: "",
        usage: "the member to come back from, in place of the one that is furthest",
      },
    ],
    (tools, { flags, args }) => {
      none(args, "recover");
      return recover(tools, optional(flags.string("confirm")), optional(flags.string("from")));
    },
  ),
  operation(
    "destroy",
    "",
    "Ends a cluster: stops its members for good, and sets their data aside",
    [
      CONFIRM,
      { name: "delete-data", kind: "bool", value: false, usage: "delete the data in place of setting it aside" },
    ],
    (tools, { flags, args }) => {
      none(args, "destroy");
      return destroy(tools, optional(flags.string("confirm")), flags.bool("delete-data"));
    },
  ),
  {
    name: "abandon",
    short: "Gives up an operation that was interrupted, so that another one can begin",
    long: `Gives up an operation that was interrupted. What it has done stays: look at the log beside the inventory, and at kvorum
cluster status, before you go on.`,
    flags: [INVENTORY_FILE],
    run(context, { flags, args }) {
      none(args, "abandon");
      const path = resolve(context.cwd, flags.string("file"));
      const progress = readProgress(path);
      if (progress === undefined) throw new DeployError("no operation is waiting to be finished");
      removeProgress(path);
      context.out(`given up: ${progress.command}\nDone before that, as ${logPath(path)} has it too:\n`);
      for (const step of progress.done) context.out(`  ${step}\n`);
    },
  },
];

function operation<Given extends object>(
  name: string,
  usage: string,
  short: string,
  flags: readonly Flag[],
  make: (tools: Tools, invocation: DeployInvocation) => Operation<Given>,
): DeployCommand {
  return {
    name,
    usage,
    short,
    long: `${short}.\n${REPEAT}`,
    flags: [...SHARED, ...flags, ...(RISKY.has(name) ? [SKIP_SNAPSHOT] : [])],
    async run(context, invocation) {
      const json = isJson(invocation.flags);
      const path = resolve(context.cwd, invocation.flags.string("file"));
      const tools = { context, path };
      const made = make(tools, invocation);
      const isGuarded = RISKY.has(name) && !invocation.flags.bool("skip-snapshot");
      await carryOut<Given>(context, isGuarded ? withSnapshot(tools, made) : made, {
        inventoryPath: path,
        command: commandLine(context),
        isDry: invocation.flags.bool("dry-run"),
        isJson: json,
      });
    },
  };
}

function program(move: Move, short: string): DeployCommand {
  return operation(
    move,
    "PROGRAM-OR-ARCHIVE",
    short,
    [{ name: "version", kind: "string", value: "", usage: "its version, where the file does not tell" }],
    (tools, { flags, args }) =>
      changeProgram(tools, { operation: move, copy: one(args, move), version: optional(flags.string("version")) }),
  );
}

const optional = (text: string): string | undefined => (text === "" ? undefined : text);

const commandLine = ({ args }: Context): string => ["kvorum", ...args].join(" ");

function newMember(text: string) {
  const [, name, address, ssh] = /^([^=]+)=([^=]+)(?:=(.+))?$/.exec(text) ?? [];
  if (name === undefined || address === undefined)
    throw new DeployError(`--add ${text} is not NAME=ADDRESS, such as etcd-4=10.0.0.4`);
  return { name, address, ...(ssh === undefined ? {} : { ssh }) };
}

function some(args: readonly string[], what: string): readonly string[] {
  if (args.length === 0) throw new DeployError(what);
  return args;
}

function one(args: readonly string[], command: string): string {
  if (args.length !== 1) throw new DeployError(`${command} takes one argument, not ${args.length}; see --help`);
  return args[0]!;
}

function none(args: readonly string[], command: string): void {
  if (args.length > 0) throw new DeployError(`${command} takes flags only, not ${args.join(" ")}`);
}
