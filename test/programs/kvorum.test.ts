import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { main } from "../../src/programs/kvorum.ts";

for (const command of ["import", "export"]) {
  test(`kvorum ${command} says that it is not built, and fails`, async (t) => {
    const said = capture(t, process.stderr);
    assert.equal(await main([command, "--interval=1h"], {}), 2);
    assert.equal(said(), `kvorum ${command} is not built yet, see docs/differences.md\n`);
  });
}

test("an unknown command of kvorum is told from one that is not built", async (t) => {
  const said = capture(t, process.stderr);
  assert.equal(await main(["bakcup"], {}), 2);
  assert.match(said(), /^kvorum: unknown command "bakcup"\n/);
});

function capture(t: TestContext, stream: NodeJS.WriteStream): () => string {
  const write = t.mock.method(stream, "write", () => true);
  return () => write.mock.calls.map(({ arguments: [text] }) => String(text)).join("");
}
