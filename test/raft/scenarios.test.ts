import { join } from "node:path";
import { newChangerScenario } from "./harness/changer.ts";
import { newInteraction } from "./harness/interaction.ts";
import { runQuorumCommand } from "./harness/quorum.ts";
import { ownScenarios, sharedScenarios, testScenarios } from "./harness/scenario.ts";

testScenarios(join(ownScenarios, "group"), () => newInteraction());
testScenarios(join(ownScenarios, "confchange"), newChangerScenario);
testScenarios(join(ownScenarios, "quorum"), () => runQuorumCommand);
testScenarios(join(sharedScenarios, "interaction"), () => newInteraction());
testScenarios(join(sharedScenarios, "confchange"), newChangerScenario);
testScenarios(join(sharedScenarios, "quorum"), () => runQuorumCommand);
