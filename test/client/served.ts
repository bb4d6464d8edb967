/** A member in this process and a client of it, for all tests of a suite. */
import assert from "node:assert/strict";
import { after, before } from "node:test";
import { Client } from "../../src/client/index.ts";
import { type InProcess, startInProcess } from "../harness/in-process.ts";

/** Gives them to `take` before the first test of the suite that calls it; ends them, and no failure is accepted. */
export function servedClient(take: (client: Client, server: InProcess) => void): void {
  let server: InProcess;
  let client: Client;
  before(async () => {
    server = await startInProcess();
    client = new Client({ endpoints: server.url });
    take(client, server);
  });
  after(async () => {
    client.close();
    await server.close();
    assert.deepEqual(server.failures, []);
  });
}
