/** Runs etcdutl inside the test's process, and creates the files that it works on. */
import { createHash } from "node:crypto";
import { writeFileSync } from "node:fs";
import { systemClock } from "../../src/base/clock.ts";
import { systemDisk } from "../../src/base/disk.ts";
import type { RawClient } from "../../src/client/raw.ts";
import { KVService, MaintenanceService } from "../../src/proto/etcdserverpb.ts";
import { main } from "../../src/utl/main.ts";

export interface UtlResult {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

export async function etcdutl(...args: string[]): Promise<UtlResult> {
  let out = "";
  let err = "";
  const io = {
    args,
    out: (text: string) => void (out += text),
    err: (text: string) => void (err += text),
    errIsTerminal: false,
    clock: systemClock,
    disk: systemDisk,
  };
  const code = await main(io);
  return { code, out, err };
}

/** Saves a backup as `etcdctl snapshot save` does, with the checksum at its end. */
export async function saveSnapshot(client: RawClient, path: string): Promise<void> {
  const blobs: Uint8Array[] = [];
  const stream = client.stream(MaintenanceService.Snapshot);
  await stream.send({});
  stream.end();
  for await (const { blob } of stream) blobs.push(blob);
  const bytes = Buffer.concat(blobs);
  const data = bytes.subarray(0, -32);
  if (!createHash("sha256").update(data).digest().equals(bytes.subarray(-32))) throw new Error("the backup is damaged");
  writeFileSync(path, bytes);
}

export const putText = (client: RawClient, key: string, value: string) =>
  client.unary(KVService.Put, { key: Buffer.from(key), value: Buffer.from(value) });

export async function getText(client: RawClient, key: string): Promise<string | undefined> {
  const { kvs } = await client.unary(KVService.Range, { key: Buffer.from(key) });
  return kvs[0] === undefined ? undefined : Buffer.from(kvs[0].value).toString();
}
