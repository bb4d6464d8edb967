/**
 * The consensus core with one deliberate bug, to see that the scenarios detect it. The core is bundled with one place
 * of its source replaced, together with the code that runs the scenarios.
 */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { build } from "esbuild";
import type { Handler } from "./scenario.ts";

export interface Mutant {
  /** The resulting bug. */
  readonly about: string;
  /** Below src/raft. */
  readonly file: string;
  readonly from: string;
  readonly to: string;
}

/** Runs the scenarios of each folder with a core. */
export interface Core {
  readonly handlers: Readonly<Record<string, () => Handler>>;
  runScenario(path: string, handle: Handler): void;
}

const HARNESS = fileURLToPath(new URL(".", import.meta.url));
const RAFT = fileURLToPath(new URL("../../../src/raft/", import.meta.url));

const ENTRY = `
  import { newChangerScenario } from "./changer.ts";
  import { newInteraction } from "./interaction.ts";
  import { runQuorumCommand } from "./quorum.ts";
  export { runScenario } from "./scenario.ts";
  export const handlers = { group: () => newInteraction(), confchange: newChangerScenario, quorum: () => runQuorumCommand };
`;

/** Throws unless the source has exactly one place to replace. Undefined changes nothing. */
export async function coreWith(mutant: Mutant | undefined): Promise<Core> {
  const folder = mkdtempSync(join(tmpdir(), "kvorum-raft-"));
  try {
    const { outputFiles } = await build({
      stdin: { contents: ENTRY, resolveDir: HARNESS, loader: "ts" },
      bundle: true,
      write: false,
      format: "esm",
      platform: "node",
      target: "node20.19",
      packages: "external",
      logLevel: "silent",
      plugins: mutant === undefined ? [] : [breaking(mutant)],
    });
    const path = join(folder, "core.mjs");
    writeFileSync(path, outputFiles[0]!.contents);
    return (await import(pathToFileURL(path).href)) as Core;
  } finally {
    rmSync(folder, { recursive: true });
  }
}

function breaking({ about, file, from, to }: Mutant): import("esbuild").Plugin {
  const path = join(RAFT, file);
  const source = readFileSync(path, "utf8");
  const places = source.split(from).length - 1;
  if (places !== 1) {
    throw new Error(`"${about}" cannot be planted in ${path}, which has ${places} places with "${from}": rewrite it`);
  }
  return {
    name: "mutant",
    setup: ({ onLoad }) => {
      onLoad({ filter: /\/src\/raft\// }, (args) =>
        args.path === path ? { contents: source.replace(from, () => to), loader: "ts" } : undefined,
      );
    },
  };
}
