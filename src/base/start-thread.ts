/** Starts threads, each with a program in its own file, from the source as well as from what was built. */
import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { Worker } from "node:worker_threads";

export interface ThreadStart {
  /** `import.meta.url` of the caller. */
  readonly from: string;
  /** The thread's program in the source, relative to the caller. */
  readonly source: string;
  /** Its name in `dist/`, where the caller may be in a subfolder. */
  readonly built: string;
  /** For debuggers and profiles. */
  readonly name: string;
  readonly workerData: object;
}

export function startThread({ from, source, built, name, workerData }: ThreadStart): Worker {
  const names = [source, `./${built}`, `../${built}`];
  const found = names.map((path) => new URL(path, from)).find((url) => existsSync(fileURLToPath(url)));
  if (found === undefined) throw new Error(`the program of the thread "${name}" is missing: ${names.join(", ")}`);
  if (!found.pathname.endsWith(".ts")) return new Worker(found, { workerData, name });
  const translator = import.meta.resolve("tsx/esm/api");
  return new Worker(FROM_SOURCE, {
    eval: true,
    workerData: { ...workerData, translator, program: found.href },
    name,
  });
}

/** TypeScript source: a thread does not inherit the loader that its process was started with. */
const FROM_SOURCE = `
const { translator, program } = require("node:worker_threads").workerData;
import(translator).then(({ register }) => {
  register();
  return import(program);
});
`;
