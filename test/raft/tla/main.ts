/**
 * Validates runs of the raft core against etcd's TLA+ specification of raft.
 *
 *   npm run tla -- --jars DIR --spec DIR [--runs N] [--from S] [--events N]    random runs, N (20) from seed S (1) on
 *   npm run tla -- --servers …                 whole servers in the simulator, by the seed too
 *   npm run tla -- --scenarios …               the scenarios of the tests that the specification can follow
 *   npm run tla -- --doctored …                lies in the runs' traces, all of which must be rejected
 *   npm run tla -- --write DIR                 only writes the traces; needs nothing
 *
 * --jars (or KVORUM_TLA_JARS) has tla2tools.jar and CommunityModules-deps.jar, from the releases of github.com/tlaplus
 * (tlaplus and CommunityModules). --spec (or KVORUM_TLA_SPEC) has Traceetcdraft.tla, Traceetcdraft.cfg and
 * etcdraft.tla, from the folder tla of github.com/etcd-io/raft, v3.7.0. Java 11 or later is taken from JAVA_HOME or
 * PATH. If anything is missing it is reported, and nothing runs; with KVORUM_REQUIRE_ALL=1 that is a failure. --jobs N
 * runs N TLCs at a time. The exit code is 1 when a trace was rejected, or a lie accepted.
 */
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { commandLine } from "../../harness/command-line.ts";
import { DOCTORS } from "./doctor.ts";
import { type TraceEvent, toNdjson } from "./event.ts";
import { recordRun, runOptions } from "./run.ts";
import { scenarioTraces } from "./scenarios.ts";
import { recordServers } from "./servers.ts";
import { findJava, missing, type TlcPlaces, validate } from "./tlc.ts";

interface Trace {
  readonly name: string;
  readonly events: readonly TraceEvent[];
  readonly endedBy: string | undefined;
  /** Whether it reports what happened. */
  readonly isTrue: boolean;
}

const options = commandLine({
  jars: "text",
  spec: "text",
  runs: "number",
  from: "number",
  events: "number",
  jobs: "number",
  write: "text",
  servers: "flag",
  scenarios: "flag",
  doctored: "flag",
  verbose: "flag",
});
const places: TlcPlaces = {
  jars: options.text("jars") ?? process.env["KVORUM_TLA_JARS"] ?? "",
  spec: options.text("spec") ?? process.env["KVORUM_TLA_SPEC"] ?? "",
  java: findJava(),
};
const folder = options.text("write") ?? "";
const lack = missing(places);
if (folder !== "") await write(folder);
else if (lack === undefined) await validateAll();
else {
  console.log(`skipped: ${lack}; the head of test/raft/tla/main.ts says what is needed and from where`);
  if (process.env["KVORUM_REQUIRE_ALL"] === "1") process.exitCode = 1;
}

async function* traces(): AsyncIterable<Trace> {
  if (options.has("scenarios")) {
    for (const { name, tracer } of scenarioTraces()) {
      const events = tracer.finish();
      if (events.length > 0) yield { name, events, endedBy: tracer.endedBy, isTrue: true };
    }
    return;
  }
  const from = options.number("from", 1);
  for (let seed = from; seed < from + options.number("runs", 20); seed++) {
    const eventsMax = options.number("events", 300);
    const servers = options.has("servers");
    const tracer = servers ? await recordServers(seed, eventsMax) : recordRun(runOptions(seed, eventsMax));
    const events = tracer.finish();
    if (!options.has("doctored")) yield { name: `run ${seed}`, events, endedBy: tracer.endedBy, isTrue: true };
    else {
      for (const { name, apply } of DOCTORS) {
        const lie = apply(events);
        if (lie !== undefined)
          yield { name: `run ${seed} with ${name}`, events: lie, endedBy: undefined, isTrue: false };
      }
    }
  }
}

async function write(into: string): Promise<void> {
  mkdirSync(into, { recursive: true });
  let count = 0;
  for await (const { name, events } of traces()) {
    writeFileSync(join(into, `${name.replaceAll(/[^\w.]+/g, "-")}.ndjson`), toNdjson(events));
    count++;
  }
  console.log(`${count} traces written to ${into}`);
}

async function validateAll(): Promise<void> {
  const total = { traces: 0, events: 0, states: 0, wrong: 0, ended: new Map<string, number>() };
  const queue = traces()[Symbol.asyncIterator]();
  await Promise.all(Array.from({ length: Math.max(1, options.number("jobs", 1)) }, worker));
  const { wrong, events, states } = total;
  const what = options.has("doctored") ? `not rejected: ${wrong}` : `rejected: ${wrong}`;
  console.log(`${total.traces} traces, ${events} events, ${states} states; ${what}`);
  for (const [reason, count] of total.ended) console.log(`${count} ended before ${reason}`);
  process.exitCode = wrong > 0 ? 1 : 0;

  async function worker(): Promise<void> {
    for (let next = await queue.next(); !next.done; next = await queue.next()) await check(next.value);
  }

  async function check({ name, events: trace, endedBy, isTrue }: Trace): Promise<void> {
    const verdict = await validate(trace, places);
    total.traces++;
    total.events += trace.length;
    total.states += verdict.states;
    if (endedBy !== undefined) total.ended.set(endedBy, (total.ended.get(endedBy) ?? 0) + 1);
    const end = endedBy === undefined ? "" : `, ended before ${endedBy}`;
    console.log(
      `${name}: ${trace.length} events, ${verdict.states} states: ${verdict.accepted ? "accepted" : verdict.reason}${end}`,
    );
    if (verdict.accepted === isTrue) return;
    total.wrong++;
    if (options.has("verbose")) console.log(verdict.output);
  }
}
