/**
 * From a pod that has just started to the flags with which its member starts. Each round looks at everything again and takes one
 * step; an end at any moment leaves a state from which the next start goes on.
 */
import { spawn } from "node:child_process";
import { dirname } from "node:path";
import { messageOf } from "../base/errors.ts";
import { formatId } from "../membership/member.ts";
import { Backoff } from "./backoff.ts";
import { type Action, decide, type Facts } from "./decide.ts";
import { addLearner, removeMember, updateMember, votersOf } from "./members.ts";
import { peerUrlOf } from "./names.ts";
import { factsNow, type Pod } from "./pod.ts";
import type { Volume } from "./volume.ts";

type Start = Extract<Action, { do: "start" }>;

/** Undefined when the signal fires first. */
export async function enter(pod: Pod, volume: Volume, signal: AbortSignal): Promise<Start | undefined> {
  const { says, clock, random } = pod;
  const backoff = new Backoff(clock);
  while (!signal.aborted) {
    const facts = await factsNow(pod, volume);
    if (signal.aborted) break;
    const action = decide(facts, () => random.uint64().toString(16));
    if (action.do === "start") {
      says.now(`starts the engine: ${action.why}`);
      return action;
    }
    try {
      if (await step(pod, volume, facts, action)) {
        backoff.reset();
        continue;
      }
    } catch (error) {
      says.waiting(`${namesOf(action)} is refused for now: ${messageOf(error)}`);
    }
    await backoff.pause(signal);
  }
  return undefined;
}

/** Whether it changed something. */
async function step(
  { settings, says, random }: Pod,
  volume: Volume,
  facts: Facts,
  action: Exclude<Action, Start>,
): Promise<boolean> {
  const members = facts.cluster.kind === "answers" ? facts.cluster.members : [];
  const own = peerUrlOf(settings, settings.name);
  switch (action.do) {
    case "wait":
      says.waiting(action.why, action.isForPerson);
      return false;
    case "plan":
      says.now(`founds a cluster with ${action.plan.founders.map(({ name }) => name).join(", ")}`);
      volume.note({ plan: action.plan });
      return true;
    case "restore":
      says.now(`begins a new cluster with the backup ${action.backup.join(" ")}`);
      await restore(settings, action.backup, random.uint64().toString(16));
      volume.note({ hasStarted: true });
      return true;
    case "discard":
      says.now(`gives its data up: ${action.why}`);
      volume.discard();
      return true;
    case "remove":
      await removeMember(settings, votersOf(members, action.member.id), action.member.id);
      says.now(`removed member ${formatId(action.member.id)}: ${action.why}`);
      return true;
    case "add": {
      const { id } = await addLearner(settings, votersOf(members), own);
      volume.clearLeftovers();
      volume.note({ joining: formatId(id) });
      says.now(`added itself as learner ${formatId(id)}`);
      return true;
    }
    case "update":
      await updateMember(settings, votersOf(members, action.member.id), action.member.id, own);
      says.now(
        `member ${formatId(action.member.id)} is now known at ${own} (before: ${action.member.peerUrls.join(", ")})`,
      );
      return true;
  }
}

function namesOf(action: Action): string {
  switch (action.do) {
    case "remove":
      return `the removal of member ${formatId(action.member.id)} (${action.why})`;
    case "add":
      return "the new learner";
    case "update":
      return "the change of the member's peer URL";
    default:
      return action.do;
  }
}

/** A cluster of this pod alone; the others join it. */
async function restore(settings: Pod["settings"], backup: readonly string[], token: string): Promise<void> {
  const { name, dataDir, restorer } = settings;
  const url = peerUrlOf(settings, name);
  const args = [
    ...backup,
    "--yes",
    `--name=${name}`,
    `--initial-cluster=${name}=${url}`,
    `--initial-advertise-peer-urls=${url}`,
    `--initial-cluster-token=${settings.token}-${token}`,
    `--data-dir=${dataDir}`,
    `--scratch-dir=${dirname(dataDir)}`,
  ];
  const child = spawn(restorer.file, [...restorer.args, ...args], { stdio: ["ignore", "inherit", "pipe"] });
  let said = "";
  child.stderr.on("data", (piece: Buffer) => (said = (said + piece.toString()).slice(-2_000)));
  const code = await new Promise<number>((resolve) => {
    child.once("error", () => resolve(-1));
    child.once("close", (ended) => resolve(ended ?? -1));
  });
  if (code !== 0) throw new Error(said.trim() || `kvorum restore: exit code ${code}`);
}
