/**
 * When a test fails, prints the seeds it has used, the last one first: with a fixed seed or a loop over many, that is
 * what is needed to reproduce the failure. The tests' generators register their seeds here.
 */
import { afterEach } from "node:test";

const SHOWN_MAX = 5;
let drawn: number[] = [];

export function noteSeed(seed: number): void {
  if (drawn.at(-1) === seed) return;
  drawn.push(seed);
  if (drawn.length > SHOWN_MAX) drawn.shift();
}

// Generators are also used by programs, which are not tests.
if (process.env["NODE_TEST_CONTEXT"] !== undefined) {
  afterEach((context) => {
    const seeds = drawn;
    drawn = [];
    const { error } = context as { error?: unknown };
    if (error === undefined || error === null || seeds.length === 0) return;
    console.error(`the test "${context.name}" failed; its last seeds, the latest first: ${seeds.reverse().join(", ")}`);
  });
}
