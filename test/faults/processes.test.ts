import { test } from "node:test";
import { survives } from "./suite.ts";

// Real processes under load: all that clients saw is linearizable, watches are complete, and no lease ends early.

test("a leader that is killed loses nothing", async () => {
  await survives("kill-leader");
});

test("a leader that stood still while another was elected answers nothing stale", async () => {
  await survives("pause-leader");
});
