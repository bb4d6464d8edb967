/** The scenarios of the raft tests, ours and etcd's, recorded for the specification as far as it can follow them. */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { basename, join } from "node:path";
import { newInteraction } from "../harness/interaction.ts";
import { ownScenarios, parseScenario, sharedScenarios } from "../harness/scenario.ts";
import { Tracer } from "./tracer.ts";

export interface ScenarioTrace {
  readonly name: string;
  readonly tracer: Tracer;
}

/** Scenarios of a missing folder are omitted. */
export function* scenarioTraces(): Iterable<ScenarioTrace> {
  for (const folder of [join(ownScenarios, "group"), join(sharedScenarios, "interaction")]) {
    if (!existsSync(folder)) continue;
    for (const file of readdirSync(folder).sort()) {
      if (!file.endsWith(".txt")) continue;
      const tracer = new Tracer();
      const handle = newInteraction({
        started: (node) => tracer.attach(node),
        persisted: (node) => tracer.persisted(node),
      });
      for (const command of parseScenario(readFileSync(join(folder, file), "utf8"))) handle(command);
      yield { name: `${basename(folder)}/${file}`, tracer };
    }
  }
}
