/** The examples in the comments of the libraries, compiled as they stand, against the types that users get. */
import assert from "node:assert/strict";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, describe, test } from "node:test";
import { repositoryRoot, run } from "../harness/programs.ts";

const folders = ["client", "embedded", "etcd3", "testing"].map((name) => join(repositoryRoot, "src", name));
/** Below the repository, where its packages are found. */
const dir = mkdtempSync(join(repositoryRoot, "node_modules", ".client-examples-"));
after(() => rmSync(dir, { recursive: true, force: true }));

interface Example {
  readonly file: string;
  readonly code: string;
}

function examplesOf(file: string): Example[] {
  const text = readFileSync(file, "utf8");
  return [...text.matchAll(/@example\n((?:\s*\*(?!\/| @).*\n)*)/g)].map(([, block]) => ({
    file,
    code: block!.replaceAll(/^\s*\* ?/gm, ""),
  }));
}

const NAMES =
  "Client, client, createWriteStream, endpointsFromDns, Etcd, etcd, json, migrate, mirror, Mirror, op, optionsFromEnvironment, " +
  "pipeline, useEtcd, when, work, type ClientOptions, type Codec";
const PRELUDE = `
import { createWriteStream } from "node:fs";
import { pipeline } from "node:stream/promises";
import { Client, type ClientOptions, type Codec, endpointsFromDns, json, Mirror, op, optionsFromEnvironment, when } from "kvorum/client";
import { Etcd, useEtcd } from "kvorum/testing";
declare const client: Client;
declare const etcd: Etcd;
declare const mirror: Mirror<string, string>;
declare function work(how: { signal: AbortSignal; token: number }): Promise<void>;
declare function migrate(how: { signal: AbortSignal; fencingToken: number }): Promise<void>;
export { ${NAMES} };
`;

describe("the examples in the comments of the client", () => {
  const files = folders.flatMap((folder) => readdirSync(folder).map((name) => join(folder, name)));
  // The tools' own connection is no part of what users import.
  const examples = files.filter((file) => file.endsWith(".ts") && !file.endsWith("raw.ts")).flatMap(examplesOf);

  test("are many", () => {
    assert.ok(examples.length >= 15, `${examples.length}`);
  });

  test("compile", async () => {
    writeFileSync(join(dir, "prelude.ts"), PRELUDE);
    examples.forEach(({ code }, i) => {
      // What an example makes itself is not given to it, and what it imports stands at the beginning.
      const own = new Set([...code.matchAll(/(?:\bconst|\busing|import) (?:\{ )?(\w+)/g)].map(([, name]) => name));
      const names = NAMES.split(", ").filter((name) => !own.has(name));
      const [imports, rest] = [/^import .*$/gm, /^(?!import ).*$/gm].map(
        (lines) => code.match(lines)?.join("\n") ?? "",
      );
      writeFileSync(
        join(dir, `example-${i}.ts`),
        `import { ${names.join(", ")} } from "./prelude.ts";\n${imports}\n{\n${rest}\n}\n`,
      );
    });
    const settings = {
      extends: join(repositoryRoot, "tsconfig.json"),
      compilerOptions: {
        noUnusedLocals: false,
        noUnusedParameters: false,
        paths: Object.fromEntries(
          Object.entries({
            kvorum: "embedded",
            "kvorum/client": "client",
            "kvorum/etcd3": "etcd3",
            "kvorum/testing": "testing",
          }).map(([name, folder]) => [name, [join(repositoryRoot, "src", folder, "index.ts")]]),
        ),
      },
      include: ["*.ts"],
    };
    writeFileSync(join(dir, "tsconfig.json"), JSON.stringify(settings));
    const compiler = join(repositoryRoot, "node_modules", "typescript", "bin", "tsc");
    const { code, stdout } = await run(process.execPath, [compiler, "-p", dir], { timeoutMs: 60_000 });
    const where = stdout
      .toString()
      .replaceAll(/example-(\d+)\.ts/g, (_, i) => `${examples[Number(i)]!.file} (example ${i})`);
    assert.equal(code, 0, where);
  });
});
