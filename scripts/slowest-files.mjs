// A further reporter of `npm test -- --times`, for its end: the files whose tests took longest, in seconds of wall time.
// The time in which a file loads is not among them.
import { testFileOf } from "./test-file.mjs";

const FILES_MAX = 25;

export default async function* slowestFiles(source) {
  const times = new Map();
  for await (const { type, data } of source) {
    if ((type !== "test:pass" && type !== "test:fail") || data.nesting > 0 || data.file === undefined) continue;
    const file = testFileOf(data.file);
    times.set(file, (times.get(file) ?? 0) + data.details.duration_ms);
  }
  const slowest = [...times].sort(([, a], [, b]) => b - a).slice(0, FILES_MAX);
  const total = [...times.values()].reduce((sum, each) => sum + each, 0);
  yield `# ${(total / 1000).toFixed(1)} s in ${times.size} files, of which\n`;
  for (const [file, milliseconds] of slowest) yield `# ${(milliseconds / 1000).toFixed(1).padStart(6)} s ${file}\n`;
}
