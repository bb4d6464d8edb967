/** A directory for what is worked on, beside nothing else, and removed in the end. */
import { createReadStream } from "node:fs";
import { mkdir, open, rm } from "node:fs/promises";
import { join } from "node:path";
import type { Random } from "../base/random.ts";

const PRIVATE_DIR = 0o700;
const PRIVATE_FILE = 0o600;
const READ_BYTES = 256 * 1024;

export interface Scratch {
  path(name: string): string;
  remove(): Promise<void>;
}

/** A new directory below `parent`, which needs room for one database or two. */
export async function scratchIn(parent: string, random: Random): Promise<Scratch> {
  const dir = join(parent, `kvorum-backup-${random.uint64().toString(16)}`);
  await mkdir(dir, { recursive: true, mode: PRIVATE_DIR });
  return {
    path: (name) => join(dir, name),
    remove: () => rm(dir, { recursive: true, force: true }),
  };
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
