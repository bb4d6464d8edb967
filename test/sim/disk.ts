/**
 * An in-memory disk that behaves like the worst real one: after `crash` each 512-byte sector written since the last
 * sync of its file is there or not, sizes too, and creations, renames and removals since the last sync of their
 * directory are kept only up to some point. Deterministic for a seed. `fault` lets a test fail any call;
 * `capacityBytes` makes the disk full.
 */
import type { Disk, DiskFile } from "../../src/base/disk.ts";
import type { SeededRandom } from "../harness/random.ts";

const SECTOR_BYTES = 512;

export type SimOperation =
  | "readDir"
  | "makeDir"
  | "rename"
  | "remove"
  | "syncDir"
  | "open"
  | "read"
  | "write"
  | "sync"
  | "truncate";

/** One file's content, in the page cache and on the platter. */
class Inode {
  data = Buffer.alloc(0);
  durable = Buffer.alloc(0);
  readonly dirty = new Set<number>();
  syncs = 0;
  /** Number of changes, and how many of them a sync has made durable. */
  changes = 0;
  durableChanges = 0;

  write(bytes: Uint8Array, position: number): void {
    if (position + bytes.length > this.data.length) this.resize(position + bytes.length);
    this.data.set(bytes, position);
    this.changes++;
    const last = Math.floor((position + bytes.length - 1) / SECTOR_BYTES);
    for (let sector = Math.floor(position / SECTOR_BYTES); sector <= last; sector++) this.dirty.add(sector);
  }

  resize(size: number): void {
    const resized = Buffer.alloc(size);
    this.data.copy(resized, 0, 0, Math.min(size, this.data.length));
    this.data = resized;
    this.changes++;
    this.dirty.add(Math.floor(Math.max(0, size - 1) / SECTOR_BYTES));
  }

  sync(): void {
    this.durable = Buffer.from(this.data);
    this.dirty.clear();
    this.syncs++;
    this.durableChanges = this.changes;
  }

  afterCrash(random: SeededRandom): Inode {
    const inode = new Inode();
    const size = random.chance(0.5) ? this.data.length : this.durable.length;
    inode.data = Buffer.alloc(size);
    this.durable.copy(inode.data, 0, 0, Math.min(size, this.durable.length));
    const survival = random.pick([0, 0.3, 0.7, 1]);
    for (const sector of this.dirty) {
      const from = sector * SECTOR_BYTES;
      const to = Math.min(from + SECTOR_BYTES, this.data.length, size);
      if (to > from && random.chance(survival)) this.data.copy(inode.data, from, from, to);
    }
    inode.sync();
    return inode;
  }
}

type Change = {
  readonly dir: string;
  readonly from: string | undefined;
  readonly to: string | undefined;
  readonly inode: Inode;
};

export class SimDisk implements Disk {
  #files = new Map<string, Inode>();
  #durableFiles = new Map<string, Inode>();
  readonly #dirs = new Set<string>(["/"]);
  /** Directory changes that are not durable yet, in order. */
  #changes: Change[] = [];
  #queue: (() => void)[] = [];
  #crashed = false;
  capacityBytes = Number.POSITIVE_INFINITY;
  /** Runs thread-pool jobs; without it, they wait for `runPending`. */
  threadPool: ((operation: SimOperation, job: () => void) => void) | undefined;
  /** Acknowledges every sync without doing it: the bug of a server that does not sync, or of a disk that lies. */
  syncLies = false;
  /** Called before each operation; a returned errno name makes it fail. */
  fault: ((operation: SimOperation, path: string) => string | undefined) | undefined;
  /** Called with each operation. */
  observe: ((operation: SimOperation, path: string) => void) | undefined;
  /** Counts of operations by kind. */
  readonly counts = new Map<SimOperation, number>();

  /** Runs thread-pool jobs, including those they start, until none is left. */
  runPending(): void {
    for (let job = this.#queue.shift(); job !== undefined; job = this.#queue.shift()) job();
  }

  /** The content after a power loss now. This disk then refuses every call. */
  crash(random: SeededRandom): SimDisk {
    const after = new SimDisk();
    for (const dir of this.#dirs) after.#dirs.add(dir);
    const happened = random.below(this.#changes.length + 1);
    const files = new Map(this.#durableFiles);
    for (const change of this.#changes.slice(0, happened)) applyChange(files, change);
    const inodes = new Map<Inode, Inode>();
    for (const [path, inode] of files) {
      const survivor = inodes.get(inode) ?? inode.afterCrash(random);
      inodes.set(inode, survivor);
      after.#files.set(path, survivor);
      after.#durableFiles.set(path, survivor);
    }
    this.#crashed = true;
    this.#queue = [];
    return after;
  }

  /** The content after a process kill now: everything the kernel had. This disk then refuses every call. */
  kill(): SimDisk {
    const after = new SimDisk();
    for (const dir of this.#dirs) after.#dirs.add(dir);
    for (const [path, inode] of this.#files) after.#files.set(path, inode);
    for (const [path, inode] of this.#durableFiles) after.#durableFiles.set(path, inode);
    after.#changes = this.#changes;
    this.#crashed = true;
    this.#queue = [];
    return after;
  }

  /** Returns a check whether everything that the directory's files hold now has become durable. */
  durability(dir: string): () => boolean {
    const pending = [...this.#files]
      .filter(([path, { changes, durableChanges }]) => path.startsWith(`${dir}/`) && changes > durableChanges)
      .map(([, inode]) => ({ inode, changes: inode.changes }));
    return () => pending.every(({ inode, changes }) => inode.durableChanges >= changes);
  }

  /** Paths of all files, ascending. */
  files(): string[] {
    return [...this.#files.keys()].sort();
  }

  /** Content of a file, for tests to inspect and damage; changes use `replace`. */
  contentOf(path: string): Buffer {
    return Buffer.from(this.#get(path).data);
  }

  replace(path: string, content: Uint8Array): void {
    const inode = new Inode();
    inode.write(content, 0);
    inode.sync();
    this.#files.set(path, inode);
    this.#durableFiles.set(path, inode);
  }

  /** What the disk returns from now on, instead of what was written there. */
  patch(path: string, offset: number, bytes: Uint8Array): void {
    const inode = this.#get(path);
    for (const content of [inode.data, inode.durable]) {
      content.set(bytes.subarray(0, Math.max(0, content.length - offset)), Math.min(offset, content.length));
    }
  }

  /** Removes a file permanently. */
  forget(path: string): void {
    this.#files.delete(path);
    this.#durableFiles.delete(path);
  }

  readDir(path: string): string[] {
    this.#before("readDir", path);
    if (!this.#dirs.has(path)) throw errno("ENOENT", path);
    const prefix = path === "/" ? "/" : `${path}/`;
    const names = [...this.#files.keys(), ...this.#dirs]
      .filter((file) => file.startsWith(prefix) && file.length > prefix.length)
      .map((file) => file.slice(prefix.length).split("/")[0]!);
    return [...new Set(names)];
  }

  exists(path: string): boolean {
    return this.#files.has(path) || this.#dirs.has(path);
  }

  modeOf(path: string): number | undefined {
    return this.exists(path) ? 0o700 : undefined;
  }

  identityOf(path: string): string {
    return path;
  }

  makeDir(path: string): void {
    this.#before("makeDir", path);
    for (let dir = path; dir.length > 1; dir = parent(dir)) this.#dirs.add(dir);
  }

  readFile(path: string): Buffer {
    this.#before("read", path);
    return this.contentOf(path);
  }

  rename(from: string, to: string): void {
    this.#before("rename", from);
    this.#change({ dir: parent(to), from, to, inode: this.#get(from) });
  }

  remove(path: string): void {
    this.#before("remove", path);
    this.#change({ dir: parent(path), from: path, to: undefined, inode: this.#get(path) });
  }

  removeDir(path: string): void {
    for (const file of [...this.#files.keys()]) if (file.startsWith(`${path}/`)) this.remove(file);
    this.#dirs.delete(path);
  }

  syncDir(path: string): void {
    this.#before("syncDir", path);
    const rest: Change[] = [];
    for (const change of this.#changes) {
      if (change.dir === path) applyChange(this.#durableFiles, change);
      else rest.push(change);
    }
    this.#changes = rest;
  }

  open(path: string, flags: "r" | "r+" | "w" | "wx"): DiskFile {
    this.#before("open", path);
    const existing = this.#files.get(path);
    if (flags === "wx" && existing !== undefined) throw errno("EEXIST", path);
    if (flags === "w" && existing !== undefined) existing.resize(0);
    if (existing === undefined) {
      if (flags === "r" || flags === "r+" || !this.#dirs.has(parent(path))) throw errno("ENOENT", path);
      this.#change({ dir: parent(path), from: undefined, to: path, inode: new Inode() });
    }
    return this.#handle(path, this.#get(path), flags !== "r");
  }

  #handle(path: string, inode: Inode, writable: boolean): DiskFile {
    let open = true;
    let busy = 0;
    const before = (operation: SimOperation): void => {
      if (!open) throw errno("EBADF", path);
      this.#before(operation, path);
    };
    const write = (bytes: Uint8Array, position: number): void => {
      if (!writable) throw errno("EBADF", path);
      const growth = Math.max(0, position + bytes.length - inode.data.length);
      const free = this.capacityBytes - this.#usedBytes();
      if (growth <= free) {
        inode.write(bytes, position);
        return;
      }
      // A full disk takes what fits.
      inode.write(bytes.subarray(0, bytes.length - (growth - Math.max(0, free))), position);
      throw errno("ENOSPC", path);
    };
    const later = (operation: SimOperation, action: () => void, done: (error: Error | null) => void): void => {
      if (!open) throw errno("EBADF", path);
      busy++;
      const job = (): void => {
        if (this.#crashed) return;
        busy--;
        let failure: Error | null = null;
        try {
          before(operation);
          action();
        } catch (error) {
          failure = error as Error;
        }
        done(failure);
      };
      if (this.threadPool === undefined) this.#queue.push(job);
      else this.threadPool(operation, job);
    };
    return {
      path,
      size: () => inode.data.length,
      read: (buffer, position) => {
        before("read");
        return position >= inode.data.length ? 0 : inode.data.copy(buffer, 0, position, position + buffer.length);
      },
      write: (buffer, position) => {
        before("write");
        write(buffer, position);
      },
      writeAsync: (buffer, position, done) => later("write", () => write(buffer, position), done),
      dataSync: () => {
        before("sync");
        if (!this.syncLies) inode.sync();
      },
      dataSyncAsync: (done) => {
        // Only data written before the call is promised; the rest stays dirty.
        const data = Buffer.from(inode.data);
        const covered = [...inode.dirty];
        const { syncs, changes } = inode;
        later(
          "sync",
          () => {
            // A blocking sync that overtook this one covered more.
            if (inode.syncs !== syncs || this.syncLies) return;
            const durable = Buffer.alloc(data.length);
            inode.durable.copy(durable);
            for (const sector of covered) {
              data.copy(durable, sector * SECTOR_BYTES, sector * SECTOR_BYTES, (sector + 1) * SECTOR_BYTES);
            }
            inode.durable = durable;
            inode.durableChanges = Math.max(inode.durableChanges, changes);
          },
          done,
        );
      },
      truncate: (size) => {
        before("truncate");
        inode.resize(size);
      },
      close: () => {
        if (!open) throw errno("EBADF", path);
        if (busy > 0) throw new Error(`${path} was closed while the thread pool used it`);
        open = false;
      },
    };
  }

  #usedBytes(): number {
    let used = 0;
    for (const inode of new Set(this.#files.values())) used += inode.data.length;
    return used;
  }

  #get(path: string): Inode {
    const inode = this.#files.get(path);
    if (inode === undefined) throw errno("ENOENT", path);
    return inode;
  }

  #change(change: Change): void {
    applyChange(this.#files, change);
    this.#changes.push(change);
  }

  #before(operation: SimOperation, path: string): void {
    if (this.#crashed) throw new Error("the machine is off");
    this.counts.set(operation, (this.counts.get(operation) ?? 0) + 1);
    this.observe?.(operation, path);
    const failure = this.fault?.(operation, path);
    if (failure !== undefined) throw errno(failure, path);
  }
}

function applyChange(files: Map<string, Inode>, change: Change): void {
  if (change.from !== undefined) files.delete(change.from);
  if (change.to !== undefined) files.set(change.to, change.inode);
}

function parent(path: string): string {
  return path.slice(0, Math.max(1, path.lastIndexOf("/")));
}

function errno(code: string, path: string): Error {
  return Object.assign(new Error(`${code}: simulated, '${path}'`), { code });
}
