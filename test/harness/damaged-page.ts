import { readFileSync, writeFileSync } from "node:fs";
import { systemDisk } from "../../src/base/disk.ts";
import { BoltReader } from "../../src/bolt/reader.ts";

/**
 * Damages a page of the keys in a database file, one that is in use: of a type that no page has.
 * @returns the page's number
 */
export function damagePage(path: string): number {
  const reader = new BoltReader({ disk: systemDisk, path });
  let page = reader.page(reader.bucket(Buffer.from("key"))!.rootPage);
  while (!page.isLeaf) page = reader.page(page.child(page.count >> 1));
  const at = page.id * reader.meta.pageSize;
  reader.close();
  const bytes = readFileSync(path);
  bytes.writeUInt16LE(0x55, at + 8);
  writeFileSync(path, bytes);
  return page.id;
}
