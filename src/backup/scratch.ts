/** A directory for what is worked on, beside nothing else, and removed in the end. */
import { createReadStream } from "node:fs";
import { mkdir, open, readdir, rm } from "node:fs/promises";
import { hostname } from "node:os";
import { join } from "node:path";
import { codeOf } from "../base/errors.ts";
import type { Random } from "../base/random.ts";

const PRIVATE_DIR = 0o700;
const PRIVATE_FILE = 0o600;
const READ_BYTES = 256 * 1024;

export interface Scratch {
  path(name: string): string;
  remove(): Promise<void>;
}

/** Of this process. */
const ours = new Set<string>();

/**
 * A new directory below `parent`, which needs room for one database or two. Those of processes of this host that have ended
 * without removing theirs are removed.
 */
export async function scratchIn(parent: string, random: Random): Promise<Scratch> {
  await mkdir(parent, { recursive: true, mode: PRIVATE_DIR });
  const own = `kvorum-backup-${hostname()}-`;
  for (const name of await readdir(parent)) {
    const pid = name.startsWith(own) ? Number(/^(\d+)-[0-9a-f]+$/.exec(name.slice(own.length))?.[1]) : Number.NaN;
    if (!Number.isNaN(pid) && isOver(pid, name)) await rm(join(parent, name), { recursive: true, force: true });
  }
  const name = `${own}${process.pid}-${random.uint64().toString(16)}`;
  ours.add(name);
  await mkdir(join(parent, name), { mode: PRIVATE_DIR });
  return {
    path: (file) => join(parent, name, file),
    remove: async () => {
      await rm(join(parent, name), { recursive: true, force: true });
      ours.delete(name);
    },
  };
}

function isOver(pid: number, name: string): boolean {
  // In a container the process before had the same number.
  if (pid === process.pid) return !ours.has(name);
  try {
    process.kill(pid, 0);
    return false;
  } catch (error) {
    return codeOf(error) === "ESRCH";
  }
}

/** Writes a stream into a new file; returns its length. */
export async function writeStream(path: string, source: AsyncIterable<Uint8Array>): Promise<number> {
  const file = await open(path, "wx", PRIVATE_FILE);
  let sizeBytes = 0;
  try {
    for await (const chunk of source) {
      await file.writeFile(chunk);
      sizeBytes += chunk.length;
    }
    return sizeBytes;
  } finally {
    await file.close();
  }
}

export const readStream = (path: string): AsyncIterable<Uint8Array> =>
  createReadStream(path, { highWaterMark: READ_BYTES });
