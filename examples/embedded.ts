/**
 * An application with etcd inside as its database: it keeps its data in a directory, serves other programs on a port, and
 * makes a backup of itself.
 *
 *   node --import tsx examples/embedded.ts
 */
import { createWriteStream, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pipeline } from "node:stream/promises";
import { Client, Etcd } from "kvorum";

const dir = mkdtempSync(join(tmpdir(), "example-"));
const dataDir = join(dir, "data");

{
  await using etcd = await Etcd.start({ dataDir });
  const client = etcd.client().json<{ readonly name: string }>();
  const visits = await client.put("visitors/1", { name: "Ada" });
  console.log(`stored at revision ${visits.revision}`);

  // Other programs reach it like any etcd, etcdctl too.
  await using other = new Client({ endpoints: etcd.endpoints });
  console.log(`others read: ${(await other.get("visitors/1"))?.value}`);

  const backup = join(dir, "backup.db");
  await pipeline(etcd.client().maintenance.snapshot(), createWriteStream(backup));
  console.log("saved a backup, for etcdutl snapshot restore");
}

{
  // The next start finds everything again.
  await using etcd = await Etcd.start({ dataDir });
  console.log(`after a restart: ${(await etcd.client().get("visitors/1"))?.value}`);
}

rmSync(dir, { recursive: true });
console.log("done");
