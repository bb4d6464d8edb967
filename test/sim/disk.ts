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

/** Growing bytes; those behind the size are zero. */
class Content {
  #bytes = Buffer.alloc(0);
  view: Buffer = this.#bytes;

  resize(size: number): void {
    if (size > this.#bytes.length) {
      const grown = Buffer.alloc(Math.max(size, 2 * this.#bytes.length));
      this.view.copy(grown);
      this.#bytes = grown;
    } else if (size < this.view.length) this.#bytes.fill(0, size, this.view.length);
    this.view = this.#bytes.subarray(0, size);
  }

  set(bytes: Uint8Array, position: number): void {
    if (position + bytes.length > this.view.length) this.resize(position + bytes.length);
    this.#bytes.set(bytes, position);
  }
}

let inodes = 0;

/** One file's content, in the page cache and on the platter. A crash keeps its number. */
class Inode {
  readonly number: number;
  readonly #data = new Content();
  readonly #durable = new Content();
  /** Sectors that differ from the platter's, with the change that wrote them last. */
  readonly #dirty = new Map<number, number>();
  /** Number of changes, and how many of them a sync has made durable. */
  changes = 0;
  durableChanges = 0;
  /** Bytes up to the last one written: what a larger size adds takes no space yet. */
  backedBytes = 0;

  constructor(number = ++inodes) {
    this.number = number;
  }

  get data(): Buffer {
    return this.#data.view;
  }

  write(bytes: Uint8Array, position: number): void {
    if (bytes.length === 0) return;
    const end = position + bytes.length;
    this.#data.set(bytes, position);
    this.backedBytes = Math.max(this.backedBytes, end);
    this.changes++;
    const last = Math.floor((end - 1) / SECTOR_BYTES);
    for (let sector = Math.floor(position / SECTOR_BYTES); sector <= last; sector++)
      this.#dirty.set(sector, this.changes);
  }

  resize(size: number): void {
    this.#data.resize(size);
    this.backedBytes = Math.min(this.backedBytes, size);
    this.changes++;
    this.#dirty.set(Math.floor(Math.max(0, size - 1) / SECTOR_BYTES), this.changes);
  }

  sync(): void {
    this.beginSync()();
  }

  /** Begins a sync: what was written before it is durable when the returned function is called. */
  beginSync(): () => void {
    const { changes } = this;
    const size = this.data.length;
    const sectors = [...this.#dirty];
    const contents = sectors.map(([sector]) => Buffer.from(sectorOf(this.data, sector)));
    return () => {
      // Another sync that overtook this one covered more.
      if (this.durableChanges >= changes) return;
      this.durableChanges = changes;
      this.#durable.resize(size);
      for (const [i, [sector, change]] of sectors.entries()) {
        this.#durable.set(contents[i]!, sector * SECTOR_BYTES);
        if (this.#dirty.get(sector) === change) this.#dirty.delete(sector);
      }
    };
  }

  /** What the disk returns from now on, instead of what was written there. */
  patch(bytes: Uint8Array, position: number): void {
    for (const { view } of [this.#data, this.#durable]) {
      view.set(bytes.subarray(0, Math.max(0, view.length - position)), Math.min(position, view.length));
    }
  }

  afterCrash(random: SeededRandom): Inode {
    const inode = new Inode(this.number);
    const durable = this.#durable.view;
    const size = random.chance(0.5) ? this.data.length : durable.length;
    inode.write(durable.subarray(0, size), 0);
    const survival = random.pick([0, 0.3, 0.7, 1]);
    for (const sector of this.#dirty.keys()) {
      const bytes = sectorOf(this.data.subarray(0, size), sector);
      if (bytes.length > 0 && random.chance(survival)) inode.write(bytes, sector * SECTOR_BYTES);
    }
    inode.resize(size);
    inode.backedBytes = Math.min(this.backedBytes, size);
    inode.sync();
    return inode;
  }
}

const sectorOf = (content: Buffer, sector: number): Buffer =>
  content.subarray(sector * SECTOR_BYTES, (sector + 1) * SECTOR_BYTES);

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
  threadPool: ((operation: SimOperation, job: () => void, path: string) => void) | undefined;
  /** Syncs of these files are acknowledged without being done: a server that does not sync, or a disk that lies. */
  syncLies: (path: string) => boolean = () => false;
  /** Called before each operation; a returned errno name makes it fail. */
  fault: ((operation: SimOperation, path: string) => string | undefined) | undefined;
  /** Called with each operation; `isBlocking` unless the thread pool does it. */
  observe: ((operation: SimOperation, path: string, isBlocking: boolean) => void) | undefined;
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

  /** Whether the file has no change that a loss of power could undo. */
  isDurable(path: string): boolean {
    const { changes, durableChanges } = this.#get(path);
    return changes === durableChanges;
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
    this.#get(path).patch(bytes, offset);
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
    return this.#dirs.has(path) ? path : String(this.#get(path).number);
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
    const before = (operation: SimOperation, isBlocking = true): void => {
      if (!open) throw errno("EBADF", path);
      this.#before(operation, path, isBlocking);
    };
    const write = (bytes: Uint8Array, position: number): void => {
      if (!writable) throw errno("EBADF", path);
      const growth = Math.max(0, position + bytes.length - inode.backedBytes);
      const free = this.#freeBytes();
      if (growth <= free) {
        inode.write(bytes, position);
        return;
      }
      // A full disk takes what fits.
      inode.write(bytes.subarray(0, Math.max(0, bytes.length - (growth - free))), position);
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
          before(operation, false);
          action();
        } catch (error) {
          failure = error as Error;
        }
        done(failure);
      };
      if (this.threadPool === undefined) this.#queue.push(job);
      else this.threadPool(operation, job, path);
    };
    const close = (): void => {
      if (!open) throw errno("EBADF", path);
      if (busy > 0) throw new Error(`${path} was closed while the thread pool used it`);
      open = false;
    };
    return {
      path,
      size: () => inode.data.length,
      read: (buffer, position) => {
        before("read");
        return position >= inode.data.length ? 0 : inode.data.copy(buffer, 0, position, position + buffer.length);
      },
      readAsync: (buffer, position, done) => {
        let count = 0;
        const read = (): void => {
          count = inode.data.copy(buffer, 0, Math.min(position, inode.data.length), position + buffer.length);
        };
        later("read", read, (error) => done(error, count));
      },
      write: (buffer, position) => {
        before("write");
        write(buffer, position);
      },
      writeAsync: (buffer, position, done) => later("write", () => write(buffer, position), done),
      dataSync: () => {
        before("sync");
        if (!this.syncLies(path)) inode.sync();
      },
      dataSyncAsync: (done) => later("sync", this.syncLies(path) ? () => {} : inode.beginSync(), done),
      truncate: (size) => {
        before("truncate");
        inode.resize(size);
      },
      close,
      closeAsync: close,
    };
  }

  #freeBytes(): number {
    if (this.capacityBytes === Number.POSITIVE_INFINITY) return this.capacityBytes;
    let used = 0;
    for (const inode of new Set(this.#files.values())) used += inode.backedBytes;
    return Math.max(0, this.capacityBytes - used);
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

  #before(operation: SimOperation, path: string, isBlocking = true): void {
    if (this.#crashed) throw new Error("the machine is off");
    this.counts.set(operation, (this.counts.get(operation) ?? 0) + 1);
    this.observe?.(operation, path, isBlocking);
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
