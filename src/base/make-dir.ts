import * as fs from "node:fs";
import { dirname } from "node:path";

/**
 * Creates the directory and its missing parents; `mode` applies to each that is new. An existing directory is left as
 * it is. Replaces Node's recursive call, which never returns where the system answers ENOENT (such as in /proc) and
 * reports ENOENT for a read-only file system. Throws node's errors; for a dangling link the code is ELINKGONE.
 */
export function makeDirs(path: string, mode: number): void {
  const missing: string[] = [];
  let at = path;
  while (!isDirectory(at)) {
    missing.push(at);
    const parent = dirname(at);
    if (parent === at) break;
    at = parent;
  }
  for (const each of missing.reverse()) make(each, mode);
}

function isDirectory(path: string): boolean {
  const stat = fs.statSync(path, { throwIfNoEntry: false });
  if (stat === undefined) return false;
  if (stat.isDirectory()) return true;
  throw Object.assign(new Error(`ENOTDIR: not a directory, mkdir '${path}'`), { code: "ENOTDIR", path });
}

function make(path: string, mode: number): void {
  try {
    fs.mkdirSync(path, { mode });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error;
    // Another process has created it meanwhile, or it is a link.
    if (isDirectory(path)) return;
    const target = fs.readlinkSync(path);
    throw Object.assign(new Error(`it is a link to ${target}, which does not exist`), { code: "ELINKGONE", path });
  }
}
