/**
 * A directory as a store. An object is written under another name, synced, and then gets its own in one step, so that it
 * is complete or not there; leftovers of interrupted writes begin with `.part-` and are not listed.
 */
import { createReadStream } from "node:fs";
import { link, mkdir, open, readdir, rename, rm, stat } from "node:fs/promises";
import { dirname, join } from "node:path";
import type { Clock } from "../../base/clock.ts";
import { codeOf, messageOf } from "../../base/errors.ts";
import type { Random } from "../../base/random.ts";
import { BackupError } from "../error.ts";
import type { PutOptions, Store, StoredObject } from "./store.ts";

const PART = ".part-";
const LEFT_MS = 3_600_000;
const PRIVATE_DIR = 0o700;
const PRIVATE_FILE = 0o600;

export class DirectoryStore implements Store {
  readonly url: string;
  readonly #random: Random;
  readonly #clock: Clock;
  #isTidy = false;

  /** `path` is absolute. The directory is created by the first write. */
  constructor(path: string, clock: Clock, random: Random) {
    this.url = path;
    this.#clock = clock;
    this.#random = random;
  }

  async *list(): AsyncGenerator<StoredObject, void, undefined> {
    let names: string[];
    try {
      names = await readdir(this.url);
    } catch (error) {
      if (codeOf(error) === "ENOENT") return;
      throw this.#trouble(this.url, error);
    }
    for (const name of names.sort()) {
      if (name.startsWith(PART)) continue;
      const found = await stat(join(this.url, name)).catch(() => undefined);
      if (found?.isFile()) yield { name, sizeBytes: found.size, modifiedMs: found.mtimeMs };
    }
  }

  async *get(name: string): AsyncGenerator<Uint8Array, void, undefined> {
    try {
      yield* createReadStream(join(this.url, name), { highWaterMark: 256 * 1024 });
    } catch (error) {
      throw this.#trouble(name, error);
    }
  }

  async put(name: string, bytes: AsyncIterable<Uint8Array>, { ifAbsent }: PutOptions): Promise<void> {
    const part = join(this.url, `${PART}${this.#random.uint64().toString(16)}`);
    try {
      await mkdir(this.url, { recursive: true, mode: PRIVATE_DIR });
      if (!this.#isTidy) await this.#tidy();
      const file = await open(part, "wx", PRIVATE_FILE);
      try {
        for await (const chunk of bytes) await file.writeFile(chunk);
        await file.sync();
      } finally {
        await file.close();
      }
      const path = join(this.url, name);
      if (ifAbsent) await link(part, path);
      else await rename(part, path);
      await syncDir(dirname(path));
    } catch (error) {
      throw this.#trouble(name, error);
    } finally {
      await rm(part, { force: true }).catch(() => {});
    }
  }

  async remove(name: string): Promise<void> {
    try {
      await rm(join(this.url, name), { force: true });
    } catch (error) {
      throw this.#trouble(name, error);
    }
  }

  /** Removes what interrupted writes have left. One that is in progress has been written to lately. */
  async #tidy(): Promise<void> {
    this.#isTidy = true;
    for (const name of await readdir(this.url)) {
      if (!name.startsWith(PART)) continue;
      const path = join(this.url, name);
      const found = await stat(path).catch(() => undefined);
      if (found !== undefined && found.mtimeMs < this.#clock.wallMs() - LEFT_MS) await rm(path, { force: true });
    }
  }

  #trouble(name: string, error: unknown): unknown {
    const code = codeOf(error);
    if (code === undefined || error instanceof BackupError) return error;
    if (code === "ENOENT") return new BackupError("ERR_BACKUP_NO_OBJECT", `${name} is missing`);
    if (code === "EEXIST") {
      return new BackupError("ERR_BACKUP_CONFLICT", `${name} exists: does another backup write into ${this.url}?`);
    }
    const full = code === "ENOSPC" ? ": the store is full" : "";
    const options = { cause: error };
    return new BackupError("ERR_BACKUP_STORE", `${this.url}/${name}${full}: ${messageOf(error)}`, options);
  }
}

async function syncDir(path: string): Promise<void> {
  const dir = await open(path, "r");
  try {
    await dir.sync();
  } finally {
    await dir.close();
  }
}
