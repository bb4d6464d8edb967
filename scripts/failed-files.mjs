// A second reporter of `npm test`, into a file of its own: the paths of the test files in which something failed, a line each.
import { testFileOf } from "./test-file.mjs";

export default async function* failedFiles(source) {
  const seen = new Set();
  for await (const { type, data } of source) {
    if (type !== "test:fail" || (data.todo !== undefined && data.todo !== false)) continue;
    if (data.file === undefined || seen.has(data.file)) continue;
    seen.add(data.file);
    yield `${testFileOf(data.file)}\n`;
  }
}
