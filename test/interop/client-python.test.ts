/**
 * The Python client `etcd3`, used through its public API. KVORUM_PYTHON names a Python that has it; python3 otherwise.
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import { test } from "node:test";
import { findProgram, ourEtcd, repositoryRoot, requirement, run } from "../harness/programs.ts";
import { startServer } from "../harness/server.ts";

const python = process.env["KVORUM_PYTHON"] || "python3";
// The library's generated code predates protobuf 4, whose pure Python implementation still accepts it.
const env = { PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION: "python" };

async function hasClient(): Promise<boolean> {
  if (findProgram(python) === undefined) return false;
  return (await run(python, ["-c", "import etcd3"], { env })).code === 0;
}

const skip = requirement(await hasClient(), `${python} has no module etcd3 (pip install etcd3)`);

test("the Python client etcd3 puts, gets, watches, locks, leases and maintains", { skip }, async () => {
  const server = await startServer(ourEtcd());
  try {
    const [host, port] = server.endpoint.split(":");
    const script = join(repositoryRoot, "test", "interop", "client_python.py");
    const { code, stdout, stderr } = await run(python, [script, host!, port!], { env, timeoutMs: 60_000 });
    assert.equal(stdout.toString(), "passed\n", stderr);
    assert.equal(code, 0);
  } finally {
    await server.close();
  }
});
