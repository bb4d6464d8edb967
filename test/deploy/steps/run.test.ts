import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { systemClock } from "../../../src/base/clock.ts";
import { systemRandom } from "../../../src/base/random.ts";
import type { Context } from "../../../src/deploy/common/context.ts";
import { refuseUnfinished } from "../../../src/deploy/steps/record.ts";
import { carryOut, type Operation, type Step } from "../../../src/deploy/steps/run.ts";
import { tempDir } from "../../harness/in-process.ts";

let root: ReturnType<typeof tempDir>;
before(() => (root = tempDir()));
after(() => root.remove());

let count = 0;
const freshPath = (): string => join(root.path, `${++count}.yml`);

interface World {
  readonly path: string;
  /** What was done, in order. */
  readonly deeds: string[];
  readonly said: string[];
  decisions: number;
  /** The tool dies when it comes to this moment: before a step's work, or after it and before it is written down. */
  dieAt: string | undefined;
}

class Death extends Error {}

const worldAt = (path: string): World => ({ path, deeds: [], said: [], decisions: 0, dieAt: undefined });

function contextOf(world: World): Context {
  return {
    args: [],
    cwd: root.path,
    env: {},
    clock: systemClock,
    random: systemRandom,
    self: { file: "", args: [] },
    out: (text) => void world.said.push(text),
    err: (text) => void world.said.push(text),
  };
}

/** Three steps: the world tells of the first and the last whether they are done, only the record of the second. */
function operation(world: World, subject = "x"): Operation<{ readonly number: number }> {
  const step = (name: string, canBeSeen: boolean): Step => ({
    text: `do ${name}`,
    ...(canBeSeen ? { isDone: async () => world.deeds.includes(name) } : {}),
    run: async () => {
      if (world.dieAt === `before ${name}`) throw new Death();
      world.deeds.push(name);
      if (world.dieAt === `after ${name}`) throw new Death();
    },
  });
  return {
    name: "test",
    subject,
    decide: async () => ({ number: ++world.decisions }),
    steps: ({ number }) => [step("a", true), step(`b${number}`, false), step("c", true)],
  };
}

const manner = (world: World, isDry = false, isJson = false) => ({
  inventoryPath: world.path,
  command: "kvorum cluster test x",
  isDry,
  isJson,
});

test("an operation that dies at any moment is finished by its repetition, with what was decided first", async () => {
  for (const moment of ["before a", "after a", "before b1", "after b1", "before c", "after c"]) {
    const world: World = { ...worldAt(freshPath()), dieAt: moment };
    await assert.rejects(carryOut(contextOf(world), operation(world), manner(world)), Death);
    assert.throws(() => refuseUnfinished(world.path), /an operation is not finished, .*"kvorum cluster test x"/);
    world.dieAt = undefined;
    await carryOut(contextOf(world), operation(world), manner(world));
    // A step of which only the record tells is taken again when it was not written down.
    const expected = moment === "after b1" ? ["a", "b1", "b1", "c"] : ["a", "b1", "c"];
    assert.deepEqual([world.deeds, world.decisions], [expected, 1], moment);
    refuseUnfinished(world.path);
  }
});

test("another operation does not begin while one is not finished", async () => {
  const world: World = { ...worldAt(freshPath()), dieAt: "before c" };
  await assert.rejects(carryOut(contextOf(world), operation(world), manner(world)), Death);
  const other = carryOut(contextOf(world), operation(world, "y"), manner(world));
  await assert.rejects(
    other,
    /an operation is not finished, after 2 steps: "kvorum cluster test x". Repeat that command/,
  );
});

test("a dry run says the steps, and does and writes nothing", async () => {
  const world = worldAt(freshPath());
  world.deeds.push("a");
  await carryOut(contextOf(world), operation(world), manner(world, true));
  assert.deepEqual(world.said, [
    "[1/3] do a: done already\n",
    "[2/3] do b1\n",
    "[3/3] do c\n",
    "nothing was changed\n",
  ]);
  assert.deepEqual(world.deeds, ["a"]);
  refuseUnfinished(world.path);
  assert.ok(!existsSync(world.path.replace(".yml", ".log")));
});

test("what a step was to bring about and did not is an error, and the log says so", async () => {
  const world = worldAt(freshPath());
  const broken: Operation<null> = {
    ...{ name: "test", subject: "", decide: async () => null },
    steps: () => [{ text: "do nothing", isDone: async () => false, run: async () => {} }],
  };
  const run = carryOut(contextOf(world), broken, manner(world));
  await assert.rejects(run, /this was carried out, and is not so: do nothing\. Repeat the command/);
  assert.match(readFileSync(world.path.replace(".yml", ".log"), "utf8"), /"step":"do nothing","failed":/);
});

test("a refusal before a step leaves it undone", async () => {
  const world = worldAt(freshPath());
  const guarded: Operation<null> = {
    ...{ name: "test", subject: "", decide: async () => null },
    steps: () => [
      { text: "take away", allow: () => Promise.reject(new Death()), run: async () => void world.deeds.push("taken") },
    ],
  };
  await assert.rejects(carryOut(contextOf(world), guarded, manner(world)), Death);
  assert.deepEqual(world.deeds, []);
});

test("as JSON the result has every step, and progress goes elsewhere", async () => {
  const world = worldAt(freshPath());
  world.deeds.push("a");
  const out: string[] = [];
  await carryOut(
    { ...contextOf(world), out: (text) => void out.push(text) },
    operation(world),
    manner(world, false, true),
  );
  assert.deepEqual(JSON.parse(out.join("")), {
    operation: "test",
    dryRun: false,
    steps: [
      { step: "do a", state: "done before" },
      { step: "do b1", state: "done" },
      { step: "do c", state: "done" },
    ],
  });
});
