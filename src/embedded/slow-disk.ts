/** A disk whose syncs take longer than they have to. */
import type { Clock } from "../base/clock.ts";
import type { Disk, DiskFile } from "../base/disk.ts";

export class SlowDisk implements Disk {
  readonly #disk: Disk;
  readonly #clock: Clock;
  readonly #latencyMs: () => number;

  constructor(disk: Disk, clock: Clock, latencyMs: () => number) {
    this.#disk = disk;
    this.#clock = clock;
    this.#latencyMs = latencyMs;
  }

  get isSlow(): boolean {
    return this.#latencyMs() > 0;
  }

  open(path: string, flags: "r" | "r+" | "w" | "wx", mode?: number): DiskFile {
    const file = this.#disk.open(path, flags, mode);
    const sync = file.dataSyncAsync.bind(file);
    file.dataSyncAsync = (done) => {
      const latencyMs = this.#latencyMs();
      if (latencyMs > 0) this.#clock.after(latencyMs, () => sync(done));
      else sync(done);
    };
    return file;
  }

  readDir(path: string): string[] {
    return this.#disk.readDir(path);
  }

  exists(path: string): boolean {
    return this.#disk.exists(path);
  }

  modeOf(path: string): number | undefined {
    return this.#disk.modeOf(path);
  }

  identityOf(path: string): string {
    return this.#disk.identityOf(path);
  }

  makeDir(path: string, mode: number): void {
    this.#disk.makeDir(path, mode);
  }

  readFile(path: string): Buffer {
    return this.#disk.readFile(path);
  }

  rename(from: string, to: string): void {
    this.#disk.rename(from, to);
  }

  remove(path: string): void {
    this.#disk.remove(path);
  }

  removeDir(path: string): void {
    this.#disk.removeDir(path);
  }

  syncDir(path: string): void {
    this.#disk.syncDir(path);
  }
}
