import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

/** The directory of package.json. It stands apart from what starts programs, which fast tests do without (scripts/test.mjs). */
export const repositoryRoot = join(dirname(fileURLToPath(import.meta.url)), "..", "..");
