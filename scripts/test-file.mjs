// What Node's runner calls a test file, which it runs from a bundle (scripts/bundle-tests.mjs).
import { relative, resolve, sep } from "node:path";

/** The names of folders with bundles begin so; they lie in node_modules/.cache. */
export const BUNDLES = "tests-";

/** The path of a test file in the repository, relative to the folder of this process, for its bundle or itself. */
export function testFileOf(path) {
  const parts = resolve(path).split(sep);
  const folder = parts.findLastIndex((part, i) => part.startsWith(BUNDLES) && parts[i - 1] === ".cache");
  return folder === -1
    ? relative(process.cwd(), path)
    : parts
        .slice(folder + 1)
        .join(sep)
        .replace(/\.js$/, ".ts");
}
