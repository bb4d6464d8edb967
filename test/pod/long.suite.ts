/** What pods of a StatefulSet go through in years, in minutes: `npm run pods`, outside CI. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { Client } from "../../src/client/client.ts";
import { Authority, writePair } from "../harness/certificates.ts";
import { ourEtcd } from "../harness/programs.ts";
import { waitFor } from "../harness/wait.ts";
import { type Pods, withPods } from "./pods.ts";

test("nothing acknowledged is lost while a set is scaled 3, 5, 3, 0, 3", () =>
  withPods({ replicas: 3 }, async (pods) => {
    pods.start(pods.first(3));
    await pods.settled(pods.first(3));
    const load = new Load(pods);
    await pods.scale(3, 5);
    await pods.settled(pods.first(5));
    await pods.scale(5, 3);
    await pods.settled(pods.first(3));
    await pods.scale(3, 0);
    await pods.scale(0, 3);
    await pods.settled(pods.first(3));
    await load.moves();
    await load.endAndCheck();
  }));

test("nothing acknowledged is lost when all pods are killed at once, and when each loses its volume in turn", () =>
  withPods({ replicas: 3 }, async (pods) => {
    pods.start(pods.first(3));
    await pods.settled(pods.first(3));
    const load = new Load(pods);
    for (let round = 0; round < 3; round++) {
      await Promise.all(pods.first(3).map((pod) => pod.kill()));
      pods.start(pods.first(3));
      await pods.settled(pods.first(3));
      const lost = pods.pod(round);
      await lost.kill();
      lost.loseVolume();
      lost.start();
      await pods.settled(pods.first(3));
      await load.moves();
    }
    await load.endAndCheck();
  }));

test("a pod that is killed at any step of its join joins when it starts again, and leaves nothing behind", () =>
  withPods({ replicas: 1 }, async (pods) => {
    pods.start(pods.first(1));
    await pods.settled(pods.first(1));
    const load = new Load(pods);
    const steps = [/added itself as learner/, /starts the engine/, /is a voter/];
    let size = 1;
    for (const step of steps) {
      const joining = pods.pod(size);
      pods.want(++size);
      joining.start();
      await joining.says(step);
      await joining.kill();
      joining.start();
      await pods.settled(pods.first(size));
    }
    // The same with the volume lost at each step.
    for (const step of steps) {
      const joining = pods.pod(size - 1);
      await joining.kill();
      joining.loseVolume();
      const before = joining.said().length;
      joining.start();
      await waitFor(`${joining.name} says ${step}`, () => step.test(joining.said().slice(before)), 30_000);
      await joining.kill();
      joining.loseVolume();
      joining.start();
      await pods.settled(pods.first(size));
    }
    await load.endAndCheck();
  }));

test("members of pods that were killed while the set was scaled down are removed by the leader", () =>
  withPods({ replicas: 5 }, async (pods) => {
    pods.start(pods.first(5));
    await pods.settled(pods.first(5));
    pods.want(3);
    await Promise.all(pods.some(3, 4).map((pod) => pod.kill()));
    await pods.settled(pods.first(3));
    // Their volumes are taken into use again when the set grows.
    pods.want(5);
    pods.start(pods.some(3, 4));
    await pods.settled(pods.first(5));
    assert.match(pods.pod(4).said(), /gives its data up/);
  }));

test("when two of three volumes are lost a person is waited for, whose word brings back what the third has", () =>
  withPods({ replicas: 3 }, async (pods) => {
    pods.start(pods.first(3));
    await pods.settled(pods.first(3));
    await pods.pod(0).client.put("a", "1");
    await pods.settled(pods.first(3));
    await Promise.all(pods.first(3).map((pod) => pod.kill()));
    for (const pod of pods.some(1, 2)) pod.loseVolume();
    pods.start(pods.first(3));
    for (const pod of pods.some(1, 2)) await pod.says(/WAITS FOR A PERSON: .*--recover-from=db-0/);
    await pods.pod(0).says(/WAITS FOR A PERSON: no majority.*the volume of db-1, db-2 is empty/);
    assert.equal((await pods.pod(1).readiness()).status, 503);

    await pods.pod(0).end();
    pods.pod(0).start("--recover-from=db-0");
    await pods.settled(pods.first(3));
    assert.equal((await pods.pod(2).client.get("a"))?.value, "1");
    // The word stays in the manifest; it is not carried out a second time.
    await Promise.all(pods.first(3).map((pod) => pod.kill()));
    for (const pod of pods.first(3)) pod.start("--recover-from=db-0");
    await pods.settled(pods.first(3));
  }));

test("a new cluster begins with a backup, once, and a set that may not found one waits", () =>
  withPods({ replicas: 1 }, async (pods) => {
    pods.start(pods.first(1));
    await pods.settled(pods.first(1));
    await pods.pod(0).client.put("a", "1");
    const backup = join(pods.directory, "backup.db");
    const pieces: Uint8Array[] = [];
    for await (const piece of pods.pod(0).client.maintenance.snapshot()) pieces.push(piece);
    writeFileSync(backup, Buffer.concat(pieces));
    await pods.pod(0).kill();
    pods.pod(0).loseVolume();
    pods.want(3);
    for (const pod of pods.first(3)) pod.start("--may-found=false");
    await pods.pod(0).says(/WAITS FOR A PERSON: the volumes of all pods are empty/);
    await Promise.all(pods.first(3).map((pod) => pod.end()));
    for (const pod of pods.first(3)) pod.start(`--restore-from=${backup}`);
    await pods.settled(pods.first(3));
    assert.equal((await pods.pod(2).client.get("a"))?.value, "1");
    await pods.pod(2).client.put("a", "2");
    await Promise.all(pods.first(3).map((pod) => pod.kill()));
    for (const pod of pods.first(3)) pod.start(`--restore-from=${backup}`);
    await pods.settled(pods.first(3));
    assert.equal((await pods.pod(0).client.get("a"))?.value, "2");
  }));

test("the members of another StatefulSet are moved over one by one, also to other addresses, under load", () =>
  withPods({ replicas: 3 }, async (pods) => {
    const [clientPort, peerPort, metricsPort] = pods.ports;
    const addressOf = (i: number) => `${pods.network.slice(0, -1)}2${i}`;
    const peers = pods.first(3).map(({ name }, i) => `${name}=http://${addressOf(i)}:${peerPort}`);
    const others = pods.first(3).map(({ name, host, volume }, i) => {
      const args = [
        `--name=${name}`,
        `--data-dir=${join(volume, "data")}`,
        `--listen-client-urls=http://${host}:${clientPort}`,
        `--advertise-client-urls=http://${host}:${clientPort}`,
        // Other pods come to the new address before this one does.
        `--listen-peer-urls=http://${addressOf(i)}:${peerPort}`,
        `--initial-advertise-peer-urls=http://${addressOf(i)}:${peerPort}`,
        `--listen-metrics-urls=http://${host}:${metricsPort}`,
        `--initial-cluster=${peers.join(",")}`,
      ];
      const { file, args: first } = ourEtcd();
      mkdirSync(volume, { recursive: true });
      const child = spawn(file, [...first, ...args], { stdio: "ignore" });
      return { child, ended: new Promise((resolve) => child.once("exit", resolve)) };
    });
    try {
      for (const { client } of pods.first(3))
        await waitFor(
          "the other set serves",
          () =>
            client
              .put("a", "1")
              .then(() => true)
              .catch(() => false),
          30_000,
        );
      const load = new Load(pods);
      for (const i of [2, 1, 0]) {
        others[i]!.child.kill("SIGTERM");
        await others[i]!.ended;
        pods.pod(i).start();
        await pods.pod(i).ready();
        assert.match(pods.pod(i).said(), /is now known at/);
        await load.moves();
      }
      await pods.settled(pods.first(3));
      await load.endAndCheck();
    } finally {
      for (const { child } of others) child.kill("SIGKILL");
    }
  }));

test("with TLS and client certificates pods found, join and leave", async () => {
  const directory = mkdtempSync(join(tmpdir(), "kvorum-pods-tls-"));
  try {
    const authority = await Authority.create("pods");
    writeFileSync(join(directory, "ca.crt"), authority.pem);
    await withPods({ replicas: 2, tlsDir: directory }, async (pods) => {
      // Members see each other come from the first address of the network.
      const names = ["127.0.0.1", ...pods.first(3).map(({ host }) => host)];
      writePair(directory, "pod", await authority.issue({ cn: "root", names }));
      pods.start(pods.first(2));
      await pods.settled(pods.first(2));
      await pods.scale(2, 3);
      await pods.settled(pods.first(3));
      await pods.scale(3, 1);
      await pods.settled(pods.first(1));
    });
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
});

/** Writes through all members, and remembers what was acknowledged. */
class Load {
  readonly #client: Client;
  readonly #acknowledged: number[] = [];
  #tried = 0;
  #isOver = false;
  readonly #ended: Promise<void>;

  constructor(pods: Pods) {
    this.#client = new Client({ endpoints: pods.first(5).map(({ endpoint }) => endpoint), timeoutMs: 2_000 });
    this.#ended = this.#write();
  }

  async #write(): Promise<void> {
    while (!this.#isOver) {
      const number = ++this.#tried;
      try {
        await this.#client.put(`load/${number}`, "v");
        this.#acknowledged.push(number);
      } catch {
        // Not acknowledged; it may be there all the same.
      }
    }
  }

  /** Waits until writes are acknowledged again. */
  async moves(): Promise<void> {
    const before = this.#acknowledged.length;
    await waitFor("a write is acknowledged", () => this.#acknowledged.length > before, 30_000);
  }

  async endAndCheck(): Promise<void> {
    this.#isOver = true;
    await this.#ended;
    const found = new Set<string>();
    for await (const { key } of this.#client.list({ prefix: "load/" })) found.add(key);
    this.#client.close();
    const lost = this.#acknowledged.filter((number) => !found.has(`load/${number}`));
    assert.deepEqual(lost, [], `of ${this.#acknowledged.length} acknowledged writes`);
    assert.ok(this.#acknowledged.length > 100, `only ${this.#acknowledged.length} writes were acknowledged`);
  }
}
