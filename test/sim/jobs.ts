/**
 * Runs seeds and planted bugs, several at a time: each job is its own process, because a planted bug changes the
 * server's classes and a run listens for the errors of its whole process. A single job runs in the calling process.
 *
 * Promises that a run has the same outcome wherever it runs, and that a process that dies or hangs during a seed is
 * reported as a finding of that seed.
 */
import { type ChildProcess, fork } from "node:child_process";
import { BUGS } from "./bugs.ts";
import type { Finding } from "./checkers/history.ts";
import { type PlanSettings, planOf } from "./plan.ts";
import { type Outcome, simulate } from "./simulation.ts";

export interface Task {
  readonly seed: number;
  /** Name of the planted bug. */
  readonly bug: string | undefined;
  readonly settings: PlanSettings;
}

export interface TaskOutcome extends Pick<Outcome, "findings" | "hash"> {
  /** Undefined for an incomplete run. */
  readonly counts: Outcome["counts"] | undefined;
}

/** Runs tasks, as many at a time as it has jobs. */
export interface Jobs {
  readonly count: number;
  run(task: Task): Promise<TaskOutcome>;
  end(): void;
}

/** A seed takes a second or two; one that takes this long hangs. */
const TASK_MS_MAX = 5 * 60_000;

export function openJobs(count: number): Jobs {
  if (count <= 1) return { count: 1, run: runTask, end: () => {} };
  const workers = Array.from({ length: count }, () => new Worker());
  return {
    count,
    run(task) {
      const idle = workers.find(({ isBusy }) => !isBusy);
      if (idle === undefined) throw new Error(`all ${count} jobs are busy`);
      return idle.run(task);
    },
    end() {
      for (const worker of workers) worker.end();
    },
  };
}

/** Calls `work` for each item, as many at a time as there are jobs, until `isOver`. */
export async function forEach<T>(
  items: Iterable<T>,
  jobs: Jobs,
  isOver: () => boolean,
  work: (item: T) => Promise<void>,
): Promise<void> {
  const iterator = items[Symbol.iterator]();
  const line = async (): Promise<void> => {
    while (!isOver()) {
      const next = iterator.next();
      if (next.done === true) return;
      await work(next.value);
    }
  };
  await Promise.all(Array.from({ length: jobs.count }, line));
}

export async function runTask({ seed, bug: name, settings }: Task): Promise<TaskOutcome> {
  const bug = BUGS.find((each) => each.name === name);
  const { findings, hash, counts } = await simulate(
    planOf(seed, { ...bug?.settings, ...settings }),
    bug === undefined ? {} : { bug },
  );
  return { findings, hash, counts };
}

/** A process that runs one task at a time; started on demand, and restarted when it died. */
class Worker {
  isBusy = false;
  #child: ChildProcess | undefined;

  run(task: Task): Promise<TaskOutcome> {
    const child = (this.#child ??= fork(new URL("worker.ts", import.meta.url), [], { serialization: "advanced" }));
    this.isBusy = true;
    return new Promise((resolve) => {
      const done = (outcome: TaskOutcome): void => {
        clearTimeout(timer);
        child.off("message", done);
        child.off("exit", died);
        this.isBusy = false;
        resolve(outcome);
      };
      const died = (code: number | null, signal: string | null): void => {
        this.#child = undefined;
        done(failedOutcome(`its process ended with ${signal ?? `code ${code}`}`));
      };
      const timer = setTimeout(() => {
        this.#child = undefined;
        child.kill("SIGKILL");
        done(failedOutcome(`it did not end within ${TASK_MS_MAX} ms`));
      }, TASK_MS_MAX);
      child.on("message", done);
      child.on("exit", died);
      child.send(task);
    });
  }

  /** The process ends by itself when its channel is closed. */
  end(): void {
    if (this.#child?.connected === true) this.#child.disconnect();
  }
}

function failedOutcome(message: string): TaskOutcome {
  const finding: Finding = { checker: "simulation", message, moment: 0 };
  return { findings: [finding], hash: "none", counts: undefined };
}
