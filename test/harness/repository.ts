import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

/** The directory of package.json. Separate from what starts programs, which fast tests avoid (scripts/test.mjs). */
export const repositoryRoot = join(dirname(fileURLToPath(import.meta.url)), "..", "..");
