/**
 * A pod's volume: whose data it holds, and the notes beside it that make a half-done founding or join safe to repeat. Notes say
 * nothing that the data says: data wins.
 */
import { readdirSync, renameSync, rmSync } from "node:fs";
import { dirname, join } from "node:path";
import type { Disk } from "../base/disk.ts";
import { systemDisk } from "../base/disk.ts";
import { codeOf } from "../base/errors.ts";
import { nullLogger } from "../base/log.ts";
import { makeDirs } from "../base/make-dir.ts";
import type { Random } from "../base/random.ts";
import { systemText } from "../base/system-error.ts";
import { DeployError } from "../deploy/common/context.ts";
import { PRIVATE_DIR_MODE, readText, SECRET_MODE, writeWhole } from "../deploy/common/files.ts";
import { Metadata } from "../proto/etcdserverpb.ts";
import { LogReader } from "../wal/log-reader.ts";
import { listSegments, walExists } from "../wal/names.ts";
import { isObject, parsed, textIn } from "./json.ts";
import { type Plan, planFrom } from "./plan.ts";

/** Whom the data belongs to; "unreadable" is left to the engine, which says what is wrong. */
export type Data = { readonly memberId: bigint; readonly clusterId: bigint } | "unreadable" | undefined;

export interface Notes {
  /** Drawn when the volume was first seen empty: a volume that was replaced has another. */
  readonly uid: string;
  /** The new cluster that this volume is to belong to. */
  readonly plan?: Plan | undefined;
  /** The member that was added for this volume, in hexadecimal. */
  readonly joining?: string | undefined;
  /** The engine has begun to write: from here on, a volume without data has lost it. */
  readonly hasStarted?: boolean | undefined;
  /** The word of a person that has been carried out. */
  readonly recovered?: string | undefined;
}

export class Volume {
  readonly dataDir: string;
  readonly #notesPath: string;
  readonly #random: Random;
  readonly #disk: Disk;
  #notes: Notes;

  /** Throws DeployError when the volume cannot be used. */
  constructor(dataDir: string, notesPath: string, random: Random, disk: Disk = systemDisk) {
    this.dataDir = dataDir;
    this.#notesPath = notesPath;
    this.#random = random;
    this.#disk = disk;
    this.#notes = notesFrom(readText(notesPath)) ?? this.#fresh();
    const hasData = this.data() !== undefined;
    if (this.#notes.hasStarted === true && !hasData) this.#notes = this.#fresh();
    if (hasData) this.#notes = { ...this.#notes, hasStarted: true };
    writeWhole(notesPath, notesText(this.#notes), SECRET_MODE);
    this.#emptyTrash();
  }

  get notes(): Notes {
    return this.#notes;
  }

  note(change: Partial<Notes>): void {
    this.#notes = { ...this.#notes, ...change };
    writeWhole(this.#notesPath, notesText(this.#notes), SECRET_MODE);
  }

  data(): Data {
    const dir = join(this.dataDir, "member", "wal");
    try {
      if (!walExists(this.#disk, dir)) return undefined;
      const reader = new LogReader(this.#disk, dir, listSegments(this.#disk, dir, nullLogger).slice(-1));
      try {
        while (reader.metadata === undefined && reader.next());
        if (reader.metadata === undefined) return "unreadable";
        const { nodeId, clusterId } = Metadata.decode(reader.metadata);
        return { memberId: nodeId, clusterId };
      } finally {
        reader.close();
      }
    } catch {
      return "unreadable";
    }
  }

  /** What the engine left without having begun to write its log. */
  clearLeftovers(): void {
    if (this.data() === undefined) this.#throwAway();
  }

  /** Gives the data up: its member is no member any more. The volume is as new. */
  discard(): void {
    this.#throwAway();
    this.#notes = this.#fresh();
    writeWhole(this.#notesPath, notesText(this.#notes), SECRET_MODE);
  }

  /** Renamed first: a removal that is interrupted leaves no half of a data directory. */
  #throwAway(): void {
    const trash = join(dirname(this.dataDir), `${TRASH}${this.#random.uint64().toString(16)}`);
    try {
      renameSync(this.dataDir, trash);
    } catch (error) {
      if (codeOf(error) === "ENOENT") return;
      // A volume mounted at the data directory itself can only be emptied.
      if (codeOf(error) !== "EBUSY") throw new DeployError(`cannot set ${this.dataDir} aside: ${systemText(error)}`);
      rmSync(join(this.dataDir, "member"), { recursive: true, force: true });
      return;
    }
    rmSync(trash, { recursive: true, force: true });
  }

  #emptyTrash(): void {
    for (const name of readdirSync(dirname(this.dataDir)))
      if (name.startsWith(TRASH)) rmSync(join(dirname(this.dataDir), name), { recursive: true, force: true });
  }

  #fresh(): Notes {
    makeDirs(dirname(this.#notesPath), PRIVATE_DIR_MODE);
    return { uid: this.#random.uint64().toString(16) };
  }
}

const TRASH = ".kvorum-discarded-";

const notesText = (notes: Notes): string => `${JSON.stringify(notes)}\n`;

/** Undefined when there are none, or what is there was never written here. */
function notesFrom(text: string | undefined): Notes | undefined {
  const found = text === undefined ? undefined : parsed(text);
  const uid = textIn(found, "uid");
  if (!isObject(found) || uid === undefined) return undefined;
  return {
    uid,
    plan: planFrom(found["plan"]),
    joining: textIn(found, "joining"),
    hasStarted: found["hasStarted"] === true,
    recovered: textIn(found, "recovered"),
  };
}
