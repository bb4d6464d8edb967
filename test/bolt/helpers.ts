import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { TestContext } from "node:test";
import type { BoltBucketSource } from "../../src/bolt/writer.ts";

export type Content = Record<string, readonly (readonly [key: string | Uint8Array, value: string | Uint8Array])[]>;

/** A directory that is deleted after the test. */
export function tempDir(t: TestContext): string {
  const dir = mkdtempSync(join(tmpdir(), "kvorum-bolt-"));
  t.after(() => rmSync(dir, { recursive: true, force: true }));
  return dir;
}

const bytes = (text: string | Uint8Array) => (typeof text === "string" ? Buffer.from(text) : text);

/** Buckets to write, from literals that are already in order. */
export function sources(content: Content): BoltBucketSource[] {
  return Object.entries(content).map(([name, entries]) => ({
    name: Buffer.from(name),
    *entries() {
      for (const [key, value] of entries) yield { key: bytes(key), value: bytes(value) };
    },
  }));
}

/** A bucket of `count` entries with keys of 17 bytes, as etcd's revisions are, and values of a given or varying length. */
export function numbered(name: string, count: number, valueBytes: (i: number) => number): BoltBucketSource {
  return {
    name: Buffer.from(name),
    *entries() {
      // One buffer for all, as the writer permits.
      const key = Buffer.alloc(17);
      key[8] = 0x5f;
      for (let i = 0; i < count; i++) {
        key.writeUInt32BE(i, 4);
        yield { key, value: Buffer.alloc(valueBytes(i), i & 255) };
      }
    },
  };
}

/** A reproducible sequence of 32-bit numbers (xorshift). */
export function generator(seed: number): () => number {
  let state = seed | 1;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return state >>> 0;
  };
}
