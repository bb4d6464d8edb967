// The reporter of `npm test` where its output is not a terminal: TAP as Node writes it, and before the counts, which
// stay last, every failed test with its file and message. Among two thousand results a failure is not found otherwise.
import { resolve } from "node:path";
import { tap } from "node:test/reporters";
import { testFileOf } from "./test-file.mjs";

/** More of a message is above, in the test's own report. */
const MESSAGE_LINES_MAX = 12;
const LINE_LENGTH_MAX = 300;

/** The first line of the counts. */
const COUNTS = /^# tests \d+$/m;

export default async function* report(source) {
  const failed = [];
  for await (const chunk of tap(noting(source, failed))) {
    if (failed.length > 0 && COUNTS.test(chunk)) yield listOf(failed.splice(0));
    yield chunk;
  }
  // A runner that words its counts otherwise.
  if (failed.length > 0) yield listOf(failed);
}

/** Passes the events on, and adds to `failed` what has failed by itself. */
async function* noting(source, failed) {
  /** Names of the suites around the current test. */
  const names = [];
  for await (const event of source) {
    const { type, data } = event;
    if (type === "test:start") {
      names.length = data.nesting;
      names[data.nesting] = data.name;
    } else if (type === "test:fail" && failedItself(data)) {
      const path = [...names.slice(0, data.nesting), data.name].filter((name) => name !== undefined);
      failed.push({ file: data.file, path, message: messageOf(data.details?.error) });
    }
    yield event;
  }
}

/** Not for failures inside it, which are listed, and not as one that may fail. */
function failedItself({ todo, details }) {
  return (todo === undefined || todo === false) && details?.error?.failureType !== "subtestsFailed";
}

function messageOf(error) {
  const cause = error?.cause ?? error;
  return String(cause?.message ?? cause ?? "no message");
}

/** As comments of TAP. */
function listOf(failed) {
  const lines = [`# ${failed.length} failed:`];
  for (const { file, path, message } of failed) {
    // A file that ends badly counts as a test of its own name.
    const names = path.filter((name) => file === undefined || resolve(name) !== file);
    lines.push(`# - ${[...(file === undefined ? [] : [testFileOf(file)]), ...names].join(" > ")}`);
    const said = message.split("\n").filter((line) => line.trim() !== "");
    lines.push(...said.slice(0, MESSAGE_LINES_MAX).map((line) => `#     ${line.slice(0, LINE_LENGTH_MAX)}`));
    if (said.length > MESSAGE_LINES_MAX) lines.push(`#     … ${said.length - MESSAGE_LINES_MAX} lines more`);
  }
  return `${lines.join("\n")}\n`;
}
