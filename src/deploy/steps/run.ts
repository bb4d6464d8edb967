/**
 * Operations as steps. What an operation means is decided once, before its first step, and written down; its steps follow
 * from that alone. Each step says what it will do, sees whether that is done already, refuses when it would cost the quorum
 * or data, and does it. So an operation that was interrupted anywhere goes on when its command is repeated.
 */
import { messageOf } from "../../base/errors.ts";
import { type Context, DeployError } from "../common/context.ts";
import { lockBeside } from "../common/lock.ts";
import { log, type Progress, readProgress, removeProgress, unfinished, writeProgress } from "./record.ts";

export interface Step {
  /** One line that says what it will do. Names the step within its operation. */
  readonly text: string;
  /** Whether what it brings about is there; without it only the record of this operation tells. */
  readonly isDone?: () => Promise<boolean>;
  /** Throws DeployError when it must not be taken now. */
  readonly allow?: () => Promise<void>;
  /** `tell` says details. */
  readonly run: (tell: (text: string) => void) => Promise<void>;
}

export interface Operation<Given> {
  readonly name: string;
  /** What it was asked to do, the same in every repetition. */
  readonly subject: string;
  /** Looks at everything, refuses, decides; changes nothing. What it returns is written down as JSON. */
  readonly decide: () => Promise<Given>;
  /** Asks whether to go on, where it is about more than can be taken back. Throws DeployError when not. */
  readonly confirm?: (given: Given) => Promise<void>;
  readonly steps: (given: Given) => readonly Step[];
}

export interface Manner {
  readonly inventoryPath: string;
  /** The command line to repeat. */
  readonly command: string;
  /** Only says what would be done. */
  readonly isDry: boolean;
  readonly isJson: boolean;
}

interface Outcome {
  readonly step: string;
  readonly state: "done" | "done before" | "to do";
}

/** Throws DeployError; the record of what was done stays, and the command can be repeated. */
export async function carryOut<Given>(context: Context, operation: Operation<Given>, manner: Manner): Promise<void> {
  const { inventoryPath, isJson, isDry } = manner;
  const lock = lockBeside(inventoryPath);
  try {
    const outcomes = await inTurn(context, operation, manner);
    if (isJson)
      context.out(`${JSON.stringify({ operation: operation.name, dryRun: isDry, steps: outcomes }, null, 2)}\n`);
  } finally {
    lock.release();
  }
}

async function inTurn<Given>(context: Context, operation: Operation<Given>, manner: Manner): Promise<Outcome[]> {
  const { name, subject } = operation;
  const { inventoryPath, command, isDry } = manner;
  const before = readProgress<Given>(inventoryPath);
  if (before !== undefined && (before.operation !== name || before.subject !== subject)) throw unfinished(before);
  const given = before?.given ?? (await operation.decide());
  const steps = operation.steps(given);
  // People read progress where it does not mix with a result.
  const tell = (text: string) => (manner.isJson ? context.err(text) : context.out(text));
  if (isDry) return preview(steps, before?.done ?? [], tell);
  if (before === undefined) await operation.confirm?.(given);
  else tell(`continuing what was interrupted after ${before.done.length} of ${steps.length} steps\n`);
  let progress: Progress<Given> = before ?? {
    operation: name,
    subject,
    command,
    startedMs: context.clock.wallMs(),
    given,
    done: [],
  };
  writeProgress(inventoryPath, progress);
  const outcomes: Outcome[] = [];
  for (const [i, step] of steps.entries()) {
    const wasDone = await isDone(step, progress.done);
    tell(`[${i + 1}/${steps.length}] ${step.text}${wasDone ? ": done already" : ""}\n`);
    if (!wasDone) await take(context, operation, manner, step, tell);
    progress = { ...progress, done: [...new Set([...progress.done, step.text])] };
    writeProgress(inventoryPath, progress);
    outcomes.push({ step: step.text, state: wasDone ? "done before" : "done" });
  }
  removeProgress(inventoryPath);
  return outcomes;
}

async function take(
  context: Context,
  { name, subject }: { readonly name: string; readonly subject: string },
  { inventoryPath }: Manner,
  step: Step,
  tell: (text: string) => void,
): Promise<void> {
  const entry = { operation: name, subject, step: step.text };
  const note = (what: Readonly<Record<string, string>>) =>
    log(inventoryPath, { time: new Date(context.clock.wallMs()).toISOString(), ...entry, ...what });
  try {
    await step.allow?.();
    await step.run((text) => tell(`      ${text}`));
  } catch (error) {
    note({ failed: messageOf(error) });
    throw error;
  }
  // What does not hold now was not brought about, whatever the step believes.
  if (step.isDone !== undefined && !(await step.isDone())) {
    note({ failed: "it is not done" });
    throw new DeployError(
      `this was carried out, and is not so: ${step.text}. Repeat the command; if that does not help, look at the host`,
    );
  }
  note({ outcome: "done" });
}

/**
 * What this operation has done and seen done stays done: a later step may have changed the same thing on purpose. Of a step
 * that was interrupted before it was written down, the world tells.
 */
async function isDone({ text, isDone: ask }: Step, done: readonly string[]): Promise<boolean> {
  return done.includes(text) || (ask !== undefined && (await ask()));
}

async function preview(
  steps: readonly Step[],
  done: readonly string[],
  tell: (text: string) => void,
): Promise<Outcome[]> {
  const outcomes: Outcome[] = [];
  for (const [i, step] of steps.entries()) {
    // What a later step needs may be there only after an earlier one.
    const state = (await isDone(step, done).catch(() => false)) ? "done before" : "to do";
    tell(`[${i + 1}/${steps.length}] ${step.text}${state === "to do" ? "" : ": done already"}\n`);
    outcomes.push({ step: step.text, state });
  }
  tell("nothing was changed\n");
  return outcomes;
}
