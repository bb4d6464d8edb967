import { test } from "node:test";
import { requireFault, survives } from "./suite.ts";

// Disks of the tests' own, under members that have work to do.

test("a member whose disk is full says so and ends, and comes back when there is room", {
  skip: requireFault("full-disk"),
}, async () => {
  await survives("full-disk");
});
