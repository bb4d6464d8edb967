import { test } from "node:test";
import { requireFault, survives } from "./suite.ts";

// Separate disks under members with work to do.

test("a member whose disk is full says so and ends, and comes back when there is room", {
  skip: requireFault("full-disk"),
}, async () => {
  await survives("full-disk");
});
