/**
 * Sectors that a disk returns different from what was written: in the log, in snapshot files, and in the database. A
 * member with a damaged log must refuse to start and name the file, or start with exactly its previous data; one with a
 * damaged page of its database must name the file when it reads the page, at the start or later, and until then have
 * the same data as the others.
 *
 * One machine at a time: as with a lost machine, the others have a quorum of acknowledged data.
 *
 * Sectors of zeros are excluded at the end of the log. There they look unwritten, and etcd's log format does not record
 * how far it was synced (docs/reliability.md).
 */
import { databaseProblems } from "./database.ts";
import type { SimDisk } from "./disk.ts";
import { type LogState, readLog, WAL_DIR } from "./log-on-disk.ts";
import type { SimMachine } from "./machine.ts";
import type { FaultStep } from "./plan.ts";
import type { SimRandom } from "./random.ts";
import { damagePage, type Effect } from "./rot-database.ts";

const SNAP_DIR = "/data/member/snap";
const DATABASE = `${SNAP_DIR}/db`;
const SECTOR_BYTES = 512;

export type RotStep = Extract<FaultStep, { kind: "rot" }>;
type FileRotStep = RotStep & { readonly what: "log" | "snapshot" };

interface Damage {
  readonly machine: SimMachine;
  readonly path: string;
  readonly offset: number;
  readonly before: Buffer;
  readonly after: Buffer;
  /** Of a damaged database. */
  readonly effect?: Effect;
}

export class Rot {
  readonly #random: SimRandom;
  readonly #found: (message: string) => void;
  /** Not read by a member's start yet. */
  #unread: Damage | undefined;
  /** Of the member that starts and has not met it yet. */
  #reading: Damage | undefined;
  /** Of the database of the member that starts. */
  #met: Damage | undefined;
  /** The undamaged log content of the member that starts. */
  #expected: { readonly machine: SimMachine; readonly log: LogState } | undefined;
  /** Machines with damaged disks, read or not. */
  readonly #damaged = new Set<SimMachine>();

  constructor(random: SimRandom, found: (message: string) => void) {
    this.#random = random;
    this.#found = found;
  }

  /** The machine whose damage will show when its member starts. */
  get unread(): SimMachine | undefined {
    return this.#unread?.machine;
  }

  /** Whether a member's start has still to meet damage: until then no other machine may be lost. */
  get isPending(): boolean {
    return this.#unread !== undefined || this.#reading !== undefined;
  }

  /** Damages a file of the machine; returns where, or undefined when there is nothing to damage. */
  damage(machine: SimMachine, step: RotStep): string | undefined {
    const { what } = step;
    return what === "database" ? this.#damageDatabase(machine, step) : this.#damageFile(machine, { ...step, what });
  }

  #damageDatabase(machine: SimMachine, { how }: RotStep): string | undefined {
    const damage = damagePage(machine.disk, DATABASE, this.#random, how);
    if (damage === undefined) return undefined;
    const { offset, effect } = damage;
    this.#unread = { machine, path: DATABASE, ...damage };
    // The engine promises that the state before the newest one is whole.
    const problems = effect === "older" ? databaseProblems(machine.disk, DATABASE) : [];
    for (const problem of problems) this.#found(`${machine.name} without its newest meta page: ${problem}`);
    if (effect !== "none") this.#damaged.add(machine);
    return `${DATABASE} at offset ${offset}: ${how}, effect ${effect}`;
  }

  /** The next commit would replace the damage, or be cut short over pages that are needed again: it must show now. */
  get isUrgent(): boolean {
    return this.#unread?.effect === "older";
  }

  #damageFile(machine: SimMachine, { what, pick, how }: FileRotStep): string | undefined {
    const { disk } = machine;
    const path = pickFile(disk, what, pick, how === "zeros");
    if (path === undefined) return undefined;
    const content = disk.contentOf(path);
    const used = usedBytes(content);
    if (used === 0) return undefined;
    const at = this.#random.below(used);
    const sector = at - (at % SECTOR_BYTES);
    const isSector = how === "sector" || how === "zeros";
    const [offset, end] = isSector ? [sector, Math.min(sector + SECTOR_BYTES, used)] : [at, at + 1];
    const before = Buffer.from(content.subarray(offset, end));
    const after = before.map((byte) => {
      if (how === "zeros") return 0;
      return how === "bit" ? byte ^ (1 << this.#random.below(8)) : byte ^ (1 + this.#random.below(255));
    });
    disk.patch(path, offset, after);
    this.#unread = { machine, path, offset, before, after: Buffer.from(after) };
    this.#damaged.add(machine);
    return `${path} at offset ${offset}: ${how}`;
  }

  /** Records what the member must find if it starts. */
  starting(machine: SimMachine): void {
    // Killed in the middle of its start, it meets the same damage at the next.
    const damage = [this.#unread, this.#reading].find((each) => each?.machine === machine);
    if (damage === undefined) return;
    this.#unread = undefined;
    this.#reading = damage;
    this.#expected = undefined;
    this.#met = undefined;
    const { disk } = machine;
    const { path, offset, before, after, effect } = damage;
    if (effect !== undefined) {
      this.#met = damage;
      return;
    }
    if (!disk.exists(path)) return;
    const now = disk.contentOf(path).subarray(offset, offset + after.length);
    if (!now.equals(after)) return;
    disk.patch(path, offset, before);
    const log = readLog(disk);
    disk.patch(path, offset, after);
    if (log !== undefined) this.#expected = { machine, log };
  }

  /** The member started despite the damage: it must have lost nothing. */
  started(machine: SimMachine): void {
    if (this.#reading?.machine === machine) this.#reading = undefined;
    this.#endDatabaseDamage(machine);
    if (this.#expected?.machine !== machine) return;
    const { log } = this.#expected;
    this.#expected = undefined;
    const { storage, snapshotIndex } = machine.running!.parts;
    const { term, vote } = storage.initialState().hardState ?? { term: 0, vote: 0n };
    const wrong =
      term !== log.term || vote !== log.vote
        ? `term ${term} and vote ${vote} instead of ${log.term} and ${log.vote}`
        : storage.lastIndex() < log.lastIndex
          ? `a log that ends at ${storage.lastIndex()} instead of ${log.lastIndex}`
          : wrongEntry(log, snapshotIndex, storage.lastIndex(), (index) => storage.term(index));
    if (wrong !== undefined) this.#found(`${machine.name} started from a damaged disk with ${wrong}`);
  }

  /**
   * The start has read every page, so what it did not report ends here: it could show much later, when another member
   * is being replaced. A lost meta page is written again by the next commit.
   */
  #endDatabaseDamage(machine: SimMachine): void {
    const damage = this.#met;
    if (damage?.machine !== machine) return;
    this.#met = undefined;
    const { path, offset, before, after, effect } = damage;
    const now = machine.disk.contentOf(path).subarray(offset, offset + after.length);
    if (effect === "older") machine.databases.wentBack(machine.disk, path);
    else if (now.equals(after)) machine.disk.patch(path, offset, before);
    else return;
    this.#damaged.delete(machine);
  }

  /** True when damage explains that the member refuses to start, and the error names the file. */
  explains(machine: SimMachine, error: string): boolean {
    return this.#damaged.has(machine) && error.includes("/data/member/");
  }

  /** Whether files of the machine may be damaged. */
  isDamaged(machine: SimMachine): boolean {
    return this.#damaged.has(machine);
  }

  /** The machine has a new disk. */
  replaced(machine: SimMachine): void {
    this.#damaged.delete(machine);
    if (this.#unread?.machine === machine) this.#unread = undefined;
    if (this.#reading?.machine === machine) this.#reading = undefined;
    if (this.#expected?.machine === machine) this.#expected = undefined;
    if (this.#met?.machine === machine) this.#met = undefined;
  }
}

function pickFile(disk: SimDisk, what: "log" | "snapshot", pick: number, zeros: boolean): string | undefined {
  const files = disk.files();
  if (what === "snapshot") {
    const snapshots = files.filter((path) => path.startsWith(`${SNAP_DIR}/`) && /\.snap(\.db)?$/.test(path));
    return snapshots[pick % Math.max(1, snapshots.length)];
  }
  const segments = files.filter((path) => path.startsWith(`${WAL_DIR}/`) && path.endsWith(".wal"));
  if (zeros) return segments.slice(0, -1)[pick % Math.max(1, segments.length - 1)];
  // The most recent writes matter most.
  return pick % 2 === 0 ? segments.at(-1) : segments[pick % Math.max(1, segments.length)];
}

/** Without the zeros of reserved space. */
function usedBytes(content: Buffer): number {
  let used = content.length;
  while (used > 0 && content[used - 1] === 0) used--;
  return used;
}

function wrongEntry(
  log: LogState,
  snapshotIndex: number,
  lastIndex: number,
  termOf: (index: number) => number | Error | undefined,
): string | undefined {
  for (let index = snapshotIndex + 1; index <= lastIndex; index++) {
    const [term, expected] = [termOf(index), log.terms.get(index)];
    if (expected !== undefined && term !== expected) return `entry ${index} of term ${term} instead of ${expected}`;
  }
  return undefined;
}
