// A further reporter of `npm test -- --times`, for its end: the files whose tests took longest, in seconds of wall time.
// The time in which a file loads is not among them.
import { writeSync } from "node:fs";
import { testFileOf } from "./test-file.mjs";

const FILES_MAX = 25;

export default async function* slowestFiles(source) {
  const times = new Map();
  // The runner exits as soon as the last test ends, before a reporter could pass on what it says then.
  process.on("exit", () => writeSync(process.stderr.fd, listOf(times)));
  for await (const { type, data } of source) {
    if ((type !== "test:pass" && type !== "test:fail") || data.nesting > 0 || data.file === undefined) continue;
    const file = testFileOf(data.file);
    times.set(file, (times.get(file) ?? 0) + data.details.duration_ms);
  }
}

function listOf(times) {
  const slowest = [...times].sort(([, a], [, b]) => b - a).slice(0, FILES_MAX);
  const total = [...times.values()].reduce((sum, each) => sum + each, 0);
  const seconds = (milliseconds) => `${(milliseconds / 1000).toFixed(1).padStart(8)} s`;
  return [`${seconds(total)} in ${times.size} files`, ...slowest.map(([file, each]) => `${seconds(each)} ${file}`), ""]
    .map((line) => line && `# ${line}`)
    .join("\n");
}
