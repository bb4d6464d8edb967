/**
 * Separate disks for a test, mounted where a member keeps its data: a small one that can be full, one that can be slow.
 */
import { execFileSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import {
  closeSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmdirSync,
  rmSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { findProgram } from "../harness/programs.ts";

const MIB = 1 << 20;
const THROTTLE = "/sys/fs/cgroup/blkio";

/** Why separate disks are not possible here; undefined when they are. */
export function disksMissing(): string | undefined {
  if (process.getuid?.() !== 0) return "disks of a test's own need root";
  const missing = ["mount", "umount"].filter((name) => findProgram(name) === undefined);
  return missing.length === 0 ? undefined : `disks need ${missing.join(", ")} on PATH`;
}

/** Why a disk cannot be made slow here. */
export function slowDisksMissing(): string | undefined {
  if (disksMissing() !== undefined) return disksMissing();
  const missing = ["losetup", "mkfs.ext4"].filter((name) => findProgram(name) === undefined);
  if (missing.length > 0) return `slow disks need ${missing.join(", ")} (mount, e2fsprogs) on PATH`;
  const file = join(THROTTLE, "blkio.throttle.write_iops_device");
  return existsSync(file) ? undefined : `slow disks need ${file} (cgroup v1 with block throttling)`;
}

abstract class MountedDisk {
  readonly path: string;
  readonly #home: string;
  readonly #onExit = (): void => this.close();
  #open = true;

  constructor(name: string) {
    this.#home = mkdtempSync(join(tmpdir(), `kvorum-${name}-`));
    this.path = join(this.#home, "mount");
    mkdirSync(this.path);
    process.on("exit", this.#onExit);
  }

  protected file(name: string): string {
    return join(this.#home, name);
  }

  /** Unmounts it and removes everything. */
  close(): void {
    if (!this.#open) return;
    this.#open = false;
    process.off("exit", this.#onExit);
    quietly("umount", "-l", this.path);
    this.detach();
    rmSync(this.#home, { recursive: true, force: true });
  }

  protected detach(): void {}
}

/** An in-memory disk whose free space a filler takes. */
export class SmallDisk extends MountedDisk {
  constructor(sizeMiB: number) {
    super("small");
    execFileSync("mount", ["-t", "tmpfs", "-o", `size=${sizeMiB}m`, "kvorum", this.path]);
  }

  /** Takes all free space; returns the number of bytes. */
  fill(): number {
    const fd = openSync(join(this.path, "filler"), "a");
    let written = 0;
    try {
      for (let size = MIB; size >= 1; ) {
        try {
          const taken = writeSync(fd, Buffer.alloc(size));
          written += taken;
          if (taken < size) size = Math.floor(size / 2);
        } catch (error) {
          if ((error as NodeJS.ErrnoException).code !== "ENOSPC") throw error;
          size = Math.floor(size / 2);
        }
      }
    } finally {
      closeSync(fd);
    }
    return written;
  }

  makeRoom(): void {
    rmSync(join(this.path, "filler"), { force: true });
  }
}

/** A file system on a loop device; the kernel throttles a process's writes to it. */
export class SlowDisk extends MountedDisk {
  readonly #device: string;
  readonly #numbers: string;
  readonly #group: string;

  constructor(sizeMiB: number) {
    super("slow");
    const image = this.file("image");
    closeSync(openSync(image, "w"));
    truncateSync(image, sizeMiB * MIB);
    execFileSync("mkfs.ext4", ["-q", "-F", image], { stdio: "ignore" });
    this.#device = execFileSync("losetup", ["--find", "--show", image], { encoding: "utf8" }).trim();
    this.#numbers = readFileSync(`/sys/block/${this.#device.replace("/dev/", "")}/dev`, "utf8").trim();
    this.#group = join(THROTTLE, `kvorum-${randomBytes(3).toString("hex")}`);
    execFileSync("mount", [this.#device, this.path]);
    mkdirSync(this.#group);
  }

  /** Throttles this process's writes; needed once for each start. */
  adopt(pid: number): void {
    writeFileSync(join(this.#group, "cgroup.procs"), `${pid}`);
  }

  /** Writes per second, 0 for no limit. A sync takes two or three. */
  limit(writes: number): void {
    writeFileSync(join(this.#group, "blkio.throttle.write_iops_device"), `${this.#numbers} ${writes}`);
  }

  protected override detach(): void {
    quietly("losetup", "-d", this.#device);
    try {
      rmdirSync(this.#group);
    } catch {
      // Still used by a process that is ending; an empty group costs nothing.
    }
  }
}

function quietly(file: string, ...args: string[]): void {
  try {
    execFileSync(file, args, { stdio: "ignore" });
  } catch {
    // It is gone already.
  }
}
