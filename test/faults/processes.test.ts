import { test } from "node:test";
import { survives } from "./suite.ts";

// Real processes under load: all clients' observations are linearizable, watches are complete, and no lease ends early.

test("a killed leader loses nothing", async () => {
  await survives("kill-leader");
});

test("a leader that was paused while another was elected answers nothing stale", async () => {
  await survives("pause-leader");
});
