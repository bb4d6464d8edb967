/** The scenario commands that change a configuration: simple, enter-joint [autoleave=true], leave-joint. */
import { parseChanges } from "../../../src/raft/confchange/change.ts";
import { type ChangedConfig, Changer, ConfChangeError } from "../../../src/raft/confchange/changer.ts";
import { NO_LIMIT } from "../../../src/raft/entry-size.ts";
import { ProgressTracker } from "../../../src/raft/tracker/tracker.ts";
import { type Command, type Handler, valuesOf } from "./scenario.ts";

export function newChangerScenario(): Handler {
  const tracker = new ProgressTracker(10, NO_LIMIT);
  // The log grows by one entry per command.
  let lastIndex = 0;
  return (command) => {
    try {
      const { config, progress } = change(new Changer(tracker, lastIndex++), command);
      tracker.use(config, progress);
    } catch (error) {
      if (error instanceof ConfChangeError) return error.message;
      throw error;
    }
    return `${tracker.config}\n${tracker.ordered.map((pr) => `${pr.id}: ${pr}\n`).join("")}`;
  };
}

function change(changer: Changer, command: Command): ChangedConfig {
  const changes = parseChanges(command.input);
  switch (command.name) {
    case "simple":
      return changer.simple(changes);
    case "enter-joint":
      return changer.enterJoint(valuesOf(command, "autoleave")[0] === "true", changes);
    case "leave-joint":
      if (changes.length > 0) throw new ConfChangeError("this command takes no input");
      return changer.leaveJoint();
    default:
      throw new SyntaxError(`line ${command.line}: unknown command ${command.name}`);
  }
}
