/** The commands of `kvorum pod`: from a command line to an exit code. */
import { type Command, helpText, type Invocation, UsageError, understand } from "../base/command-tree.ts";
import { systemText } from "../base/system-error.ts";
import { type Context, DeployError, EXIT } from "../deploy/common/context.ts";
import { leave, mustLeave } from "./leave.ts";
import { askPods } from "./neighbours.ts";
import { othersOf, type Pod, wantedNow } from "./pod.ts";
import { Says } from "./says.ts";
import { fromEnvironment, POD_FLAGS, podSettings } from "./settings.ts";
import { supervise } from "./supervise.ts";
import { Volume } from "./volume.ts";
import { wantedSource } from "./wanted.ts";

type PodCommand = Command<Context>;
type Given = Invocation<Context>;

const PROGRAM: PodCommand = {
  name: "pod",
  usage: "[-- FLAGS OF ETCD]",
  short: "A pod of a StatefulSet: founds, joins, serves, and leaves when it is scaled down",
  long: `The one command of a StatefulSet's container. It founds a cluster when the volumes of all pods are empty, joins one as a
learner and becomes a voter when it has caught up, takes its place again after its volume was lost, and leaves when the set is
scaled down. Each flag has a variable: --data-dir is KVORUM_POD_DATA_DIR. docs/kubernetes.md tells what happens when.`,
  sharedFlags: POD_FLAGS,
  commands: [
    {
      name: "status",
      short: "What the pods of the set do, as they say themselves",
      run: async (context, given) => await showStatus(context, await podOf(context, given)),
    },
    {
      name: "leave",
      short: "Leave the cluster, if the set is scaled down below this pod; for a hook where kvorum pod does not run",
      run: async (context, given) => {
        const pod = await podOf(context, given);
        const wanted = await mustLeave(pod);
        if (wanted !== undefined && !(await leave(pod, wanted)))
          throw new DeployError("it is still a member: repeat the command");
      },
    },
  ],
};

/** Resolves with the exit code. `args` begin after `pod`. */
export async function main(context: Context): Promise<number> {
  try {
    const invocation = understand(PROGRAM, context.args);
    const { command, path, wantsHelp, args, dash } = invocation;
    if (wantsHelp) {
      context.out(helpText(path));
      return EXIT.healthy;
    }
    const own = args.slice(0, dash ?? args.length);
    if (own.length > 0) throw new UsageError(`unexpected ${own.join(" ")}; flags of etcd stand behind --`, "");
    if (command.run !== undefined) {
      await command.run(context, invocation);
      return EXIT.healthy;
    }
    const pod = await podOf(context, invocation);
    const volume = new Volume(pod.settings.dataDir, pod.settings.notesPath, context.random);
    return await supervise(pod, volume, context.env);
  } catch (error) {
    if (error instanceof UsageError) context.err(`Error: ${error.message}\n${error.hint}`);
    else context.err(`Error: ${systemText(error)}\n`);
    return error instanceof DeployError ? error.exitCode : EXIT.failed;
  }
}

async function podOf({ clock, random, env, self, err }: Context, { flags, args, dash }: Given): Promise<Pod> {
  fromEnvironment(flags, env);
  const settings = podSettings(flags, self, dash === undefined ? [] : args.slice(dash));
  return { settings, clock, random, source: wantedSource(settings, env, clock), says: new Says(clock, err) };
}

async function showStatus({ out }: Context, { settings, clock, source }: Pod): Promise<void> {
  const wanted = await wantedNow(source);
  const names = [settings.name, ...othersOf(settings, wanted)].sort();
  const pods = await askPods(settings, names, clock);
  if (typeof wanted === "string") out(`${wanted}\n`);
  for (const name of names) {
    const state = pods.get(name);
    const text = state === undefined ? "does not answer" : `${state.hasData ? "data" : "no data"}  ${state.doing}`;
    out(`${name}  ${text}\n`);
  }
}
