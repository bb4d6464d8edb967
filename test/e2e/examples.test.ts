/** The commands that README.md gives a newcomer, and everything in examples/, unchanged. */
import assert from "node:assert/strict";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, describe, test } from "node:test";
import { findProgram, hostRequirement, repositoryRoot, requireProgram, run } from "../harness/programs.ts";

const dir = mkdtempSync(join(tmpdir(), "kvorum-examples-"));
after(() => rmSync(dir, { recursive: true, force: true }));

const TIMEOUT_MS = 240_000;

/** Runs a shell script in its own network, where all ports are free. */
const isolated = ["--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"];
const canIsolate =
  findProgram("unshare") !== undefined &&
  findProgram("ip") !== undefined &&
  (await run("unshare", [...isolated, "true"])).code === 0;
const skip = hostRequirement(canIsolate, "a network of one's own needs root, unshare and ip (util-linux, iproute2)");

async function shell(command: readonly string[], cwd: string): Promise<string> {
  const { code, stdout, stderr } = await run("unshare", [...isolated, ...command], { cwd, timeoutMs: TIMEOUT_MS });
  assert.equal(code, 0, `${stdout}${stderr}`);
  return stdout.toString();
}

describe("examples/", { skip }, () => {
  const examples = readdirSync(join(repositoryRoot, "examples"));

  test("is described in its README, file by file", () => {
    const readme = readFileSync(join(repositoryRoot, "examples", "README.md"), "utf8");
    for (const name of examples) if (name !== "README.md") assert.ok(readme.includes(`\`${name}\``), name);
  });

  for (const name of examples.filter((each) => each.endsWith(".sh"))) {
    test(`${name} runs to completion`, { skip: name === "tls.sh" && requireProgram("openssl") }, async () => {
      await shell([join(repositoryRoot, "examples", name)], dir);
    });
  }

  for (const [name, count] of [
    ["node.test.mjs", 3],
    ["process.test.mjs", 3],
  ] as const) {
    test(`${name} passes`, async () => {
      // A test runner that finds itself inside another one reports to that.
      const command = ["env", "-u", "NODE_TEST_CONTEXT", process.execPath, "--test", "--test-reporter=tap"];
      const output = await shell([...command, `examples/${name}`], repositoryRoot);
      assert.match(output, new RegExp(`^# pass ${count}$`, "m"));
    });
  }

  // These two bring some three hundred packages, which this repository does not need: they run where they are installed.
  for (const [runner, name, args] of [
    ["vitest", "vitest.test.mjs", ["run"]],
    ["jest", "jest.test.cjs", ["--rootDir", repositoryRoot, "--runTestsByPath"]],
  ] as const) {
    const program = join(repositoryRoot, "node_modules", ".bin", runner);
    test(`${name} passes`, { skip: !existsSync(program) && `${runner} is not installed` }, async () => {
      await shell([program, ...args, `examples/${name}`], repositoryRoot);
    });
  }

  test("embedded.ts finds its data again", async () => {
    const output = await shell([process.execPath, "--import", "tsx", "examples/embedded.ts"], repositoryRoot);
    assert.match(output, /^after a restart: \{"name":"Ada"\}\ndone$/m);
  });

  test("client.ts does what it says", async () => {
    const output = await shell([process.execPath, "--import", "tsx", "examples/client.ts"], repositoryRoot);
    assert.match(output, /^done$/m);
  });

  test("simulation.ts finds nothing, and names the leader", async () => {
    const output = await shell([process.execPath, "--import", "tsx", "examples/simulation.ts"], repositoryRoot);
    assert.match(output, /became leader at term 3/);
  });
});

test("the commands that README.md gives a newcomer work", { skip: skip || requireProgram("npm") }, async () => {
  const readme = readFileSync(join(repositoryRoot, "README.md"), "utf8");
  const section = /^## Start in 30 seconds\n([\s\S]*?)^## /m.exec(readme)?.[1] ?? "";
  const blocks = [...section.matchAll(/^```sh\n([\s\S]*?)^```/gm)].map(([, block]) => block!);
  assert.equal(blocks.length, 5, "start, client, flags, cluster, its status");
  const [start, client, flags, cluster, status] = blocks as [string, string, string, string, string];
  assert.match(start, /^npm install && npm start /);

  // A tree that may contain data directories and logs. Its packages are installed already.
  for (const name of ["bin", "dist", "node_modules", "package.json", "proto", "scripts", "src"])
    symlinkSync(join(repositoryRoot, name), join(dir, name));
  const background = (command: string) => `( ${command.replace("npm install && ", "").trim()}\n) 2> log &\n`;
  const serving = (endpoints: string) =>
    `for i in $(seq 60); do bin/etcdctl --endpoints ${endpoints} endpoint health 2> health && break; sleep 1; done\n`;
  const stop =
    "kill $!\nwait $! || true\nwhile env -u ETCDCTL_COMMAND_TIMEOUT bin/etcdctl --command-timeout 1s endpoint health 2> /dev/null; do sleep 1; done\n";
  const script = [
    // However busy the machine is.
    `set -e\nexport ETCDCTL_COMMAND_TIMEOUT=60s\n${background(start.replace(/ +#.*/, "").replace("npm start", "exec npm start"))}${serving("127.0.0.1:2379")}${client}`,
    stop,
    `${background(flags.replace("bin/etcd ", "exec bin/etcd "))}${serving("127.0.0.1:2379")}${client}${stop}`,
    `${cluster}${serving("127.0.0.1:12379,127.0.0.1:22379,127.0.0.1:32379")}${status}wait || true\n`,
  ].join("");
  const output = await shell(["bash", "-c", script], dir);
  assert.equal(output.match(/^greeting\nhello$/gm)?.length, 2, output);
  assert.equal(output.match(/│ 127\.0\.0\.1:[123]2379 │/g)?.length, 3, output);
});
