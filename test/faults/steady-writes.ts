/**
 * A program: a client that writes one new key after the other, until its standard input ends. It then reads all keys, and
 * prints as JSON how many writes were acknowledged, the longest time without an acknowledgement, and which are missing.
 * Usage: steady-writes.ts PKI-DIRECTORY PREFIX ENDPOINT...
 */
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { Client } from "../../src/client/index.ts";

export interface SteadyResult {
  readonly acknowledged: number;
  readonly failed: number;
  readonly gapMs: number;
  /** When the longest gap ended, in ms of wall-clock time. */
  readonly gapEndMs: number;
  readonly failures: readonly string[];
  readonly missing: readonly string[];
}

const PAUSE_MS = 10;
const CALL_MS = 1_000;

const [pki, prefix, ...endpoints] = process.argv.slice(2);
let isEnding = false;
process.stdin.on("end", () => (isEnding = true)).resume();

/** The certificates are read each time: they may have been changed. */
function open(): Client {
  const read = (path: string): Buffer => readFileSync(join(pki!, path));
  const besides = join(pki!, "ca-besides.crt");
  const ca = Buffer.concat([read("ca.crt"), ...(existsSync(besides) ? [readFileSync(besides)] : [])]);
  return new Client({ endpoints, tls: { ca, cert: read("clients/root.crt"), key: read("clients/root.key") } });
}

let client = open();
const keyOf = (i: number): string => `${prefix}${String(i).padStart(8, "0")}`;
let [acknowledged, failed, gapMs, gapEndMs] = [0, 0, 0, 0];
const failures: string[] = [];
let lastMs = performance.now();
process.stdout.write("started\n");
for (; !isEnding; ) {
  try {
    await client.put(keyOf(acknowledged), `${acknowledged}`, { timeoutMs: CALL_MS });
    acknowledged++;
    const nowMs = performance.now();
    if (nowMs - lastMs > gapMs && acknowledged > 1) [gapMs, gapEndMs] = [nowMs - lastMs, Date.now()];
    lastMs = nowMs;
    await sleep(PAUSE_MS);
  } catch (error) {
    failed++;
    if (failures.length < 20) failures.push(`${new Date().toISOString()} ${(error as Error).message}`);
    client.close();
    client = open();
  }
}
const found = new Set<string>();
for await (const { key } of client.list({ prefix: prefix! })) found.add(key);
const missing = Array.from({ length: acknowledged }, (_, i) => keyOf(i)).filter((key) => !found.has(key));
client.close();
const result: SteadyResult = { acknowledged, failed, gapMs, gapEndMs, failures, missing: missing.slice(0, 20) };
process.stdout.write(`${JSON.stringify(result)}\n`);
process.exit(0);
