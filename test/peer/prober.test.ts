import assert from "node:assert/strict";
import { test } from "node:test";
import { parseUrls } from "../../src/config/values/url.ts";
import { Prober } from "../../src/peer/prober.ts";
import { UrlPicker } from "../../src/peer/url-picker.ts";
import { VirtualClock } from "../harness/virtual-clock.ts";
import { waitFor } from "../harness/wait.ts";
import { startNode } from "./loopback.ts";
import { startFake } from "./raw-http.ts";

/** Probes a member that answers with this body; the test advances the prober's clock. */
async function probe(body: (clock: VirtualClock) => string | undefined, check: (p: Probing) => Promise<void>) {
  const clock = new VirtualClock();
  const asked: string[] = [];
  const fake = await startFake((socket, request) => {
    asked.push(request.split("\r\n")[0]!);
    const text = body(clock);
    if (text === undefined) socket.destroy();
    else socket.end(`HTTP/1.1 200 OK\r\nContent-Length: ${text.length}\r\nConnection: close\r\n\r\n${text}`);
  });
  const node = await startNode(1n);
  const context = { ...node.transport.context, clock };
  const prober = new Prober("ROUND_TRIPPER_RAFT_MESSAGE", 2n, parseUrls(fake.url), context);
  try {
    await check({ clock, asked, node });
  } finally {
    prober.stop();
    assert.equal(clock.timerCount, 0);
    await node.close();
    fake.close();
  }
}

interface Probing {
  readonly clock: VirtualClock;
  readonly asked: string[];
  readonly node: Awaited<ReturnType<typeof startNode>>;
}

const lines = (node: Probing["node"]) => node.logger.lines.filter(({ message }) => message.startsWith("prober"));

/** Advances the clock to the next check after the next answer. */
async function untilChecked({ clock, asked, node }: Probing): Promise<void> {
  const before = node.transport.metrics.roundTripSeconds.values.get("2")?.count ?? 0;
  clock.advance(4000);
  await waitFor("it was asked", () => asked.length > 0);
  await waitFor("it was checked", () => {
    clock.advance(1000);
    return (node.transport.metrics.roundTripSeconds.values.get("2")?.count ?? 0) > before;
  });
}

const at = (wallMs: number): string => `${JSON.stringify({ OK: true, Now: new Date(wallMs).toISOString() })}\n`;

test("a peer that answers is measured and not logged", () =>
  probe(
    (clock) => at(clock.wallMs()),
    async (probing) => {
      await untilChecked(probing);
      assert.equal(probing.asked[0], "GET /raft/probing HTTP/1.1");
      await waitFor("it was found healthy", () => {
        const known = lines(probing.node).length;
        probing.clock.advance(60_000);
        return lines(probing.node).length === known;
      });
    },
  ));

test("a peer that does not answer is logged as unhealthy", () =>
  probe(
    () => undefined,
    async (probing) => {
      await untilChecked(probing);
      const line = await waitFor("it is logged", () => lines(probing.node)[0]);
      assert.equal(line.message, "prober detected unhealthy status");
      assert.equal(line.fields["remote-peer-id"], "2");
      assert.equal(line.fields["round-tripper-name"], "ROUND_TRIPPER_RAFT_MESSAGE");
      assert.equal(line.fields["rtt"], "0s");
    },
  ));

test("a peer whose clock is behind by more than a second is logged with the difference", () =>
  probe(
    (clock) => at(clock.wallMs() - 100_000),
    async (probing) => {
      const drift = await waitFor("the difference is logged", async () => {
        await untilChecked(probing);
        return lines(probing.node).find(({ message }) => message === "prober found high clock drift");
      });
      assert.match(String(drift.fields["clock-drift"]), /^1m/);
    },
  ));

test("only the URL in use is replaced by the next when it fails", () => {
  const [one, two] = parseUrls("http://127.0.0.1:1,http://127.0.0.1:2") as [never, never];
  const picker = new UrlPicker([one, two]);
  assert.equal(picker.pick(), one);
  picker.unreachable(two);
  assert.equal(picker.pick(), one);
  picker.unreachable(one);
  picker.unreachable(one);
  assert.equal(picker.pick(), two);
  picker.unreachable(two);
  assert.equal(picker.pick(), one);
  picker.update([two]);
  picker.unreachable(two);
  assert.equal(picker.pick(), two);
});
