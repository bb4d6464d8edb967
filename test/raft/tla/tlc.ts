/**
 * TLC on a trace: whether etcd's specification of raft accepts every step of it, with its invariants holding
 * throughout. Needs Java, tla2tools.jar and CommunityModules-deps.jar of the TLA+ project, and Traceetcdraft.tla,
 * Traceetcdraft.cfg and etcdraft.tla of go.etcd.io/raft.
 */
import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { type TraceEvent, toNdjson } from "./event.ts";

export interface TlcPlaces {
  /** Folder of the two jars. */
  readonly jars: string;
  /** Folder of the specification. */
  readonly spec: string;
  readonly java: string;
}

export interface Verdict {
  readonly accepted: boolean;
  /** States explored by TLC. */
  readonly states: number;
  /** TLC's message, and its output. */
  readonly reason: string;
  readonly output: string;
}

const JARS = ["tla2tools.jar", "CommunityModules-deps.jar"];
const SPEC = ["Traceetcdraft.tla", "Traceetcdraft.cfg", "etcdraft.tla"];
const MINUTES_MAX = 10;

/** What is missing, for an error message; undefined if all is there. */
export function missing({ jars, spec, java }: TlcPlaces): string | undefined {
  for (const file of JARS)
    if (!existsSync(join(jars, file)))
      return `${file} is not in ${jars || "--jars or KVORUM_TLA_JARS, which are not set"}`;
  for (const file of SPEC)
    if (!existsSync(join(spec, file)))
      return `${file} is not in ${spec || "--spec or KVORUM_TLA_SPEC, which are not set"}`;
  return java === "" ? "java is not in PATH or JAVA_HOME" : undefined;
}

/** The Java of JAVA_HOME, or the first in PATH; "" without one. */
export function findJava(): string {
  const { JAVA_HOME, PATH = "" } = process.env;
  const folders = [...(JAVA_HOME === undefined ? [] : [join(JAVA_HOME, "bin")]), ...PATH.split(":")];
  return folders.map((folder) => join(folder, "java")).find((file) => existsSync(file)) ?? "";
}

export async function validate(events: readonly TraceEvent[], { jars, spec, java }: TlcPlaces): Promise<Verdict> {
  const folder = await mkdtemp(join(tmpdir(), "kvorum-tla-"));
  try {
    const trace = join(folder, "trace.ndjson");
    await writeFile(trace, toNdjson(events));
    const args = [
      "-XX:+UseSerialGC",
      "-XX:TieredStopAtLevel=1",
      "-Xmx2g",
      "-cp",
      JARS.map((file) => resolve(jars, file)).join(":"),
      "tlc2.TLC",
    ];
    args.push("-config", resolve(spec, "Traceetcdraft.cfg"), resolve(spec, "Traceetcdraft.tla"));
    // One worker, as the specification requires; liveness, which tells whether the trace was matched, once at the end.
    args.push(
      "-workers",
      "1",
      "-lncheck",
      "final",
      "-metadir",
      join(folder, "states"),
      "-fpmem",
      "0.5",
      "-noGenerateSpecTE",
    );
    return verdictOf(await run(java, args, { cwd: folder, env: { ...process.env, JSON: trace } }));
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

function run(
  program: string,
  args: readonly string[],
  options: { cwd: string; env: NodeJS.ProcessEnv },
): Promise<string> {
  return new Promise((done) => {
    const limits = { maxBuffer: 64 << 20, timeout: MINUTES_MAX * 60_000 };
    // TLC's exit code also gives its findings; the text says more.
    execFile(program, args, { ...options, ...limits }, (error, stdout, stderr) => {
      done(`${stdout}${stderr}${error?.killed === true ? `Error: stopped after ${MINUTES_MAX} minutes\n` : ""}`);
    });
  });
}

/** TLC accepts a trace that it could not follow to its end if it left it early: both must be there. */
function verdictOf(output: string): Verdict {
  const clean = output.includes("Model checking completed. No error has been found.");
  const complete = output.includes('<<"Progress %:", 100>>');
  const generated = [...output.matchAll(/([\d,]+) states generated/g)].at(-1)?.[1] ?? "0";
  const states = Number(generated.replaceAll(",", ""));
  const error = /^Error: .*$/m.exec(output)?.[0];
  const reason =
    clean && complete ? "accepted" : (error ?? (clean ? "the trace was not followed to its end" : output.slice(-500)));
  return { accepted: clean && complete, states, reason, output };
}
