import { type Disk, type DiskFile, systemDisk } from "../../src/base/disk.ts";

/**
 * The system's disk, with thread-pool syncs held until the test releases them. `events` records the order in which log
 * segments were written and synced; a test may add other events.
 */
export class HeldDisk implements Disk {
  readonly events: string[] = [];
  /** Fails the next sync. */
  syncError: Error | null = null;
  /** While false, syncs run as usual. */
  holding = false;
  /** Called during a blocking sync. */
  onBlockingSync: () => void = () => {};
  #held: (() => void)[] = [];

  get heldCount(): number {
    return this.#held.length;
  }

  /** Completes the oldest held sync. */
  release(): void {
    const finish = this.#held.shift();
    if (finish === undefined) throw new Error("no sync is held");
    finish();
  }

  readDir = systemDisk.readDir;
  exists = systemDisk.exists;
  modeOf = systemDisk.modeOf;
  identityOf = systemDisk.identityOf;
  makeDir = systemDisk.makeDir;
  readFile = systemDisk.readFile;
  rename = systemDisk.rename;
  remove = systemDisk.remove;
  removeDir = systemDisk.removeDir;
  syncDir = systemDisk.syncDir;

  open(path: string, flags: "r" | "r+" | "w" | "wx", mode?: number): DiskFile {
    const file = systemDisk.open(path, flags, mode);
    return path.endsWith(".wal") ? this.#watched(file) : file;
  }

  #watched(file: DiskFile): DiskFile {
    return {
      path: file.path,
      size: () => file.size(),
      read: (buffer, position) => file.read(buffer, position),
      readAsync: (buffer, position, done) => file.readAsync(buffer, position, done),
      write: (buffer, position) => {
        this.events.push("write");
        file.write(buffer, position);
      },
      writeAsync: (buffer, position, done) => file.writeAsync(buffer, position, done),
      dataSync: () => {
        this.#fail();
        this.onBlockingSync();
        file.dataSync();
        this.events.push("synced");
      },
      dataSyncAsync: (done) => {
        this.events.push("sync begins");
        const finish = (): void => {
          const error = this.syncError;
          this.syncError = null;
          if (error === null) this.events.push("synced");
          done(error);
        };
        if (this.holding) this.#held.push(finish);
        else setImmediate(finish);
      },
      truncate: (size) => file.truncate(size),
      close: () => file.close(),
      closeAsync: () => file.closeAsync(),
    };
  }

  #fail(): void {
    const error = this.syncError;
    this.syncError = null;
    if (error !== null) throw error;
  }
}
