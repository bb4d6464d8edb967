/**
 * A disk in memory, for members that leave no file. What is written is there at once and stays as long as the disk, so
 * every sync is done when it is asked for; a slow disk makes them take time. `copy` gives another disk with the same
 * content, to start from again.
 */
import type { Clock } from "../base/clock.ts";
import type { Disk, DiskFile } from "../base/disk.ts";

/** Growing bytes. Behind the size they are zero. Copies share them until one of the two changes. */
class Content {
  #bytes = NO_BYTES;
  #isShared = false;
  view: Buffer = NO_BYTES;
  readonly number = ++contents;

  resize(size: number): void {
    this.#own();
    if (size > this.#bytes.length) {
      const grown = Buffer.alloc(Math.max(size, 2 * this.#bytes.length));
      this.view.copy(grown);
      this.#bytes = grown;
    } else if (size < this.view.length) this.#bytes.fill(0, size, this.view.length);
    this.view = this.#bytes.subarray(0, size);
  }

  write(bytes: Uint8Array, position: number): void {
    this.#own();
    if (position + bytes.length > this.view.length) this.resize(position + bytes.length);
    this.#bytes.set(bytes, position);
  }

  copy(): Content {
    const other = new Content();
    other.#bytes = this.view;
    other.view = this.view;
    other.#isShared = this.#isShared = true;
    return other;
  }

  #own(): void {
    if (!this.#isShared) return;
    this.#isShared = false;
    this.#bytes = Buffer.from(this.view);
    this.view = this.#bytes;
  }
}

const NO_BYTES: Buffer = Buffer.alloc(0);
let contents = 0;

export class MemoryDisk implements Disk {
  #files = new Map<string, Content>();
  #dirs = new Set<string>(["/"]);
  readonly #clock: Clock;
  /** How long a sync takes. */
  latencyMs = 0;

  /** Completes what it does in the background on that clock. */
  constructor(clock: Clock) {
    this.#clock = clock;
  }

  get isSlow(): boolean {
    return this.latencyMs > 0;
  }

  /** A disk of its own with what this one has now. */
  copy(clock: Clock): MemoryDisk {
    const other = new MemoryDisk(clock);
    other.#dirs = new Set(this.#dirs);
    for (const [path, content] of this.#files) other.#files.set(path, content.copy());
    other.latencyMs = this.latencyMs;
    return other;
  }

  readDir(path: string): string[] {
    if (!this.#dirs.has(path)) throw errno("ENOENT", path);
    const prefix = path === "/" ? "/" : `${path}/`;
    const names = new Set<string>();
    for (const paths of [this.#files.keys(), this.#dirs]) {
      for (const each of paths) {
        if (each.startsWith(prefix) && each.length > prefix.length) names.add(each.slice(prefix.length).split("/")[0]!);
      }
    }
    return [...names];
  }

  exists(path: string): boolean {
    return this.#files.has(path) || this.#dirs.has(path);
  }

  modeOf(path: string): number | undefined {
    return this.exists(path) ? 0o700 : undefined;
  }

  identityOf(path: string): string {
    return this.#dirs.has(path) ? path : `${this.#get(path).number}`;
  }

  makeDir(path: string): void {
    for (let dir = path; dir.length > 1; dir = parent(dir)) this.#dirs.add(dir);
  }

  readFile(path: string): Buffer {
    return Buffer.from(this.#get(path).view);
  }

  rename(from: string, to: string): void {
    const content = this.#get(from);
    this.#files.delete(from);
    this.#files.set(to, content);
  }

  remove(path: string): void {
    if (!this.#files.delete(path)) throw errno("ENOENT", path);
  }

  removeDir(path: string): void {
    for (const file of [...this.#files.keys()]) if (file.startsWith(`${path}/`)) this.#files.delete(file);
    for (const dir of [...this.#dirs]) if (dir === path || dir.startsWith(`${path}/`)) this.#dirs.delete(dir);
  }

  syncDir(): void {}

  open(path: string, flags: "r" | "r+" | "w" | "wx"): DiskFile {
    let content = this.#files.get(path);
    if (flags === "wx" && content !== undefined) throw errno("EEXIST", path);
    if (content === undefined) {
      if (flags === "r" || flags === "r+" || !this.#dirs.has(parent(path))) throw errno("ENOENT", path);
      this.#files.set(path, (content = new Content()));
    } else if (flags === "w") content.resize(0);
    return new MemoryFile(
      path,
      content,
      (done, latencyMs) => this.#later(done, latencyMs),
      () => this.latencyMs,
    );
  }

  #later(done: () => void, latencyMs: number): void {
    if (latencyMs > 0) this.#clock.after(latencyMs, done);
    else this.#clock.defer(done);
  }

  #get(path: string): Content {
    const content = this.#files.get(path);
    if (content === undefined) throw errno("ENOENT", path);
    return content;
  }
}

class MemoryFile implements DiskFile {
  readonly path: string;
  readonly #content: Content;
  readonly #later: (done: () => void, latencyMs: number) => void;
  readonly #latencyMs: () => number;

  constructor(
    path: string,
    content: Content,
    later: (done: () => void, latencyMs: number) => void,
    latencyMs: () => number,
  ) {
    this.path = path;
    this.#content = content;
    this.#later = later;
    this.#latencyMs = latencyMs;
  }

  size(): number {
    return this.#content.view.length;
  }

  read(buffer: Uint8Array, position: number): number {
    const { view } = this.#content;
    return position >= view.length ? 0 : view.copy(buffer, 0, position, position + buffer.length);
  }

  readAsync(buffer: Uint8Array, position: number, done: (error: Error | null, count: number) => void): void {
    this.#later(() => done(null, this.read(buffer, position)), 0);
  }

  write(buffer: Uint8Array, position: number): void {
    this.#content.write(buffer, position);
  }

  writeAsync(buffer: Uint8Array, position: number, done: (error: Error | null) => void): void {
    this.#later(() => {
      this.write(buffer, position);
      done(null);
    }, 0);
  }

  dataSync(): void {}

  dataSyncAsync(done: (error: Error | null) => void): void {
    this.#later(() => done(null), this.#latencyMs());
  }

  truncate(size: number): void {
    this.#content.resize(size);
  }

  close(): void {}

  closeAsync(): void {
    this.close();
  }
}

function parent(path: string): string {
  return path.slice(0, Math.max(1, path.lastIndexOf("/")));
}

function errno(code: string, path: string): Error {
  return Object.assign(new Error(`${code}: in memory, '${path}'`), { code });
}
