import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import {
  chmodSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, relative } from "node:path";
import { after, before, describe, type TestContext, test } from "node:test";
import { pathToFileURL } from "node:url";
import { findProgram, repositoryRoot, requireProgram, run } from "../harness/programs.ts";
import { waitFor } from "../harness/wait.ts";

const dir = mkdtempSync(join(tmpdir(), "kvorum-package-"));
after(() => rmSync(dir, { recursive: true, force: true }));

/** `npm start` in a package, as started from a shell. */
function npmStart(t: TestContext, root: string, name: string) {
  const listen = ["--listen-client-urls", "http://127.0.0.1:0", "--advertise-client-urls", "http://127.0.0.1:1"];
  const peers = ["--listen-peer-urls", "http://127.0.0.1:0"];
  const args = ["start", "--", "--data-dir", join(dir, name), ...listen, ...peers];
  const child = spawn(findProgram("npm")!, args, { cwd: root, stdio: ["ignore", "ignore", "pipe"], detached: true });
  const running = { child, output: "", exit: once(child, "exit") };
  child.stderr.on("data", (chunk) => {
    running.output += chunk;
  });
  t.after(() => {
    try {
      process.kill(-child.pid!, "SIGKILL");
    } catch {
      // It has ended.
    }
  });
  return running;
}

async function client(root: string, endpoint: string, ...args: string[]) {
  return await run(join(root, "bin", "etcdctl"), [`--endpoints=${endpoint}`, ...args]);
}

describe("the packed package", { skip: requireProgram("npm") }, () => {
  const root = join(dir, "package");

  before(async () => {
    // Packing builds, but the build used by the tests exists already, and others may be using it.
    const packed = await run(findProgram("npm")!, ["pack", "--ignore-scripts", "--pack-destination", dir], {
      cwd: repositoryRoot,
      timeoutMs: 60_000,
    });
    assert.equal(packed.code, 0, packed.stderr);
    const file = readdirSync(dir).find((name) => name.endsWith(".tgz"))!;
    assert.equal((await run("tar", ["xzf", join(dir, file), "-C", dir])).code, 0);
    symlinkSync(join(repositoryRoot, "node_modules"), join(root, "node_modules"));
  });

  test("runs without the sources", async () => {
    assert.equal(existsSync(join(root, "src")), false);
    assert.match((await run(join(root, "bin", "etcd"), ["--version"])).stdout.toString(), /^etcd Version/);
  });

  test("gives its libraries to programs of either module system, and their types to TypeScript", async () => {
    const project = join(dir, "consumer");
    mkdirSync(join(project, "node_modules"), { recursive: true });
    symlinkSync(root, join(project, "node_modules", "kvorum"));
    for (const name of ["@types", "undici-types"]) {
      symlinkSync(join(repositoryRoot, "node_modules", name), join(project, "node_modules", name));
    }
    const use = 'const client = new Client({ endpoints: "127.0.0.1:1" }); client.close(); console.log("closed");';
    writeFileSync(join(project, "use.mjs"), `import { Client } from "kvorum/client"; ${use}`);
    writeFileSync(join(project, "use.cjs"), `const { Client } = require("kvorum/client"); ${use}`);
    for (const file of ["use.mjs", "use.cjs"]) {
      const { stdout, stderr } = await run(process.execPath, [file], { cwd: project });
      assert.equal(stdout.toString(), "closed\n", stderr);
    }
    const embed =
      "(async () => { const etcd = await Etcd.start({ members: 3 }); await etcd.client().put('a', '1'); await etcd.stop(); console.log('stopped'); })();";
    writeFileSync(join(project, "embed.mjs"), `import { Etcd } from "kvorum/testing"; ${embed}`);
    writeFileSync(join(project, "embed.cjs"), `const { Etcd } = require("kvorum"); ${embed}`);
    for (const file of ["embed.mjs", "embed.cjs"]) {
      const { stdout, stderr } = await run(process.execPath, [file], { cwd: project });
      assert.equal(stdout.toString(), "stopped\n", stderr);
    }
    const typed = [
      'import { Client, op } from "kvorum/client";',
      'import { Etcd } from "kvorum";',
      'import { useEtcd } from "kvorum/testing";',
      'import { Etcd3 } from "kvorum/etcd3";',
      'export const old = async (): Promise<string | null> => await new Etcd3().get("a");',
      "export const fixture = useEtcd(undefined, { members: 3 });",
      "export const endpoints = async (): Promise<readonly string[]> => (await Etcd.start()).endpoints;",
      "export async function value(client: Client): Promise<string | undefined> {",
      '  const answer = await client.txn({ success: [op.put("a", "1"), op.get("b")] });',
      "  return answer.succeeded ? answer.results[1]?.value : undefined;",
      "}",
      "// @ts-expect-error: values are strings",
      'export const wrong = (client: Client) => client.put("a", 1);',
    ];
    writeFileSync(join(project, "use.mts"), typed.join("\n"));
    const options = ["--noEmit", "--strict", "--module", "nodenext", "--target", "es2023", "--types", "node"];
    writeFileSync(join(project, "use.cts"), typed.join("\n"));
    const compiler = join(repositoryRoot, "node_modules", "typescript", "bin", "tsc");
    const { code, stdout } = await run(process.execPath, [compiler, ...options, "use.mts", "use.cts"], {
      cwd: project,
      timeoutMs: 60_000,
    });
    assert.equal(code, 0, stdout.toString());
  });

  test("carries its license, and the notice of what follows etcd's contracts", () => {
    for (const name of ["LICENSE", "NOTICE"]) {
      assert.equal(readFileSync(join(root, name), "utf8"), readFileSync(join(repositoryRoot, name), "utf8"));
    }
  });

  test("says in its last line that it serves, where, and what to try; and ends when npm is told to", async (t) => {
    const running = npmStart(t, root, "npm-start");
    const [, endpoint, example] = await waitFor(
      "the line",
      () => /\nReady: etcd serves clients at (\S+)\. Try: (.*)\n$/.exec(running.output),
      30_000,
    );
    assert.equal(example, `bin/etcdctl --endpoints=${endpoint} put greeting hello`);
    assert.equal((await client(root, endpoint!, "put", "greeting", "hello")).stdout.toString(), "OK\n");
    running.child.kill("SIGTERM");
    await running.exit;
    await waitFor("the server to end", () => running.output.includes('"closed etcd server"'), 30_000);
    await waitFor(
      "nobody to listen",
      async () => (await client(root, endpoint!, "--dial-timeout=1s", "--command-timeout=1s", "get", "a")).code !== 0,
    );
  });
});

test("a build that may not write says so and what to do, without a stack", {
  skip: requireProgram("setpriv"),
}, async () => {
  const root = join(dir, "foreign");
  // Empty sources of all that is built: the build fails for nothing but its place.
  const { bundling } = (await import(pathToFileURL(join(repositoryRoot, "scripts", "bundling.mjs")).href)) as {
    bundling(root: string): { entryPoints: { in: string }[] };
  };
  const { entryPoints } = bundling(repositoryRoot);
  assert.ok(entryPoints.length >= 7);
  for (const { in: source } of entryPoints) {
    const copy = join(root, relative(repositoryRoot, source));
    mkdirSync(dirname(copy), { recursive: true });
    writeFileSync(copy, "");
  }
  mkdirSync(join(root, "scripts"));
  for (const name of ["build.mjs", "bundling.mjs"]) {
    cpSync(join(repositoryRoot, "scripts", name), join(root, "scripts", name));
  }
  cpSync(join(repositoryRoot, "package.json"), join(root, "package.json"));
  symlinkSync(join(repositoryRoot, "node_modules"), join(root, "node_modules"));
  chmodSync(dir, 0o755);
  chmodSync(root, 0o555);
  const { file, args } = asNobody([process.execPath, join(root, "scripts", "build.mjs"), "--if-stale"]);
  const { code, stderr } = await run(file, args);
  assert.equal(code, 1);
  assert.match(
    stderr,
    /^cannot build: dist\/ is not built, and this user may not write in .*foreign\.\nRun "npm run build" as the owner/,
  );
  assert.doesNotMatch(stderr, /\n {4}at /);
});

/** Root may write everywhere. */
function asNobody(command: readonly string[]): { file: string; args: readonly string[] } {
  if (process.getuid?.() !== 0) return { file: command[0]!, args: command.slice(1) };
  return { file: "setpriv", args: ["--reuid=65534", "--regid=65534", "--clear-groups", ...command] };
}
