/**
 * A repository: the numbered objects of one store, each with its manifest, and the head that names first and last.
 *
 * Writing: data first, then the manifest, which must not exist yet, then the head. So an interruption leaves at most data
 * without a manifest, and of two writers one is refused.
 */
import type { Clock } from "../base/clock.ts";
import type { Random } from "../base/random.ts";
import type { Recipient } from "./age/keys.ts";
import { storedForm, type Tally } from "./coding.ts";
import { BackupError, damaged } from "./error.ts";
import {
  FORMAT,
  HEAD,
  type Head,
  MANIFEST_BYTES_MAX,
  type Manifest,
  nameOfManifest,
  numberIn,
  readHead,
  readManifest,
  type Sealed,
  type StoredData,
  sealed,
  VERIFIED,
} from "./format/manifest.ts";
import { once, readSmall, type Store, type StoredObject } from "./store/store.ts";

export interface RepositoryOptions {
  readonly store: Store;
  readonly clock: Clock;
  readonly random: Random;
  readonly recipients: readonly Recipient[];
  /** How long the store shall refuse to delete an object, where it can. */
  readonly keepMs?: number | undefined;
}

/** What a new object says of itself; the rest follows from its place. */
export type NewObject = Pick<
  Manifest,
  "kind" | "history" | "clusterId" | "from" | "to" | "events" | "startedMs" | "endedMs"
> &
  Partial<Pick<Manifest, "hash" | "reason">>;

/** The end of a repository, to which objects are added. One at a time writes. */
export class RepositoryEnd {
  readonly #options: RepositoryOptions;
  #head: Head;
  #turn: Promise<unknown> = Promise.resolve();
  /** What was wrong at the end of what is there, if anything. */
  readonly trouble: string | undefined;

  /** Reads the head, and the objects that an interruption left behind it. Throws BackupError. */
  static async open(options: RepositoryOptions): Promise<RepositoryEnd> {
    const { store } = options;
    const found = await headOf(store);
    if (found.head === undefined && found.trouble === undefined) {
      const id = options.random.uint64().toString(16).padStart(16, "0");
      const head = { format: FORMAT, repository: id, first: 1, last: 0, lastDigest: "", seenMs: 0 };
      return new RepositoryEnd(options, head, undefined);
    }
    const head = found.head ?? (await headByListing(store));
    let trouble = found.trouble;
    try {
      const last = head.last > 0 ? await manifestOf(store, head.last) : undefined;
      if (last !== undefined && last.digest !== head.lastDigest) trouble ??= `${HEAD} names another end than there is`;
    } catch (error) {
      if (!(error instanceof BackupError) || error.code === "ERR_BACKUP_STORE") throw error;
      trouble ??= error.message;
    }
    let end = head;
    for (let number = head.last + 1; ; number++) {
      const next = await manifestOf(store, number).catch((error: unknown) => {
        if (error instanceof BackupError && error.code === "ERR_BACKUP_NO_OBJECT") return undefined;
        throw error;
      });
      if (next === undefined) break;
      end = { ...end, last: number, lastDigest: next.digest };
    }
    return new RepositoryEnd(options, end, trouble);
  }

  private constructor(options: RepositoryOptions, head: Head, trouble: string | undefined) {
    this.#options = options;
    this.#head = head;
    this.trouble = trouble;
  }

  get store(): Store {
    return this.#options.store;
  }

  /** Adds an object after all that are being added. Throws BackupError, and then it is not stored: it may be tried again. */
  append(object: NewObject, plain?: () => AsyncIterable<Uint8Array>): Promise<Manifest> {
    const turn = this.#turn.then(() => this.#append(object, plain));
    this.#turn = turn.catch(() => {});
    return turn;
  }

  /** Notes that nothing more has happened until now. */
  seen(wallMs: number): Promise<void> {
    const turn = this.#turn.then(() => {
      if (this.#head.last === 0) return;
      return this.#putHead({ ...this.#head, seenMs: Math.floor(wallMs) });
    });
    this.#turn = turn.catch(() => {});
    return turn;
  }

  /** Objects before this number are about to be removed. */
  keepFrom(first: number): Promise<void> {
    const turn = this.#turn.then(() => this.#putHead({ ...this.#head, first }));
    this.#turn = turn.catch(() => {});
    return turn;
  }

  async #append(object: NewObject, plain: (() => AsyncIterable<Uint8Array>) | undefined): Promise<Manifest> {
    const { store, clock, keepMs } = this.#options;
    const number = this.#head.last + 1;
    const keepUntilMs = keepMs === undefined ? undefined : clock.wallMs() + keepMs;
    const data = plain === undefined ? undefined : await this.#putData(number, object.kind, plain(), keepUntilMs);
    const manifest: Manifest = {
      format: FORMAT,
      repository: this.#head.repository,
      number,
      previous: this.#head.lastDigest,
      ...object,
      startedMs: Math.floor(object.startedMs),
      endedMs: Math.floor(object.endedMs),
      ...(data === undefined ? {} : { data }),
    };
    const { bytes, digest } = sealed(manifest);
    const name = nameOfManifest(number);
    try {
      await store.put(name, once(bytes), { ifAbsent: true, keepUntilMs });
    } catch (error) {
      // A store may have taken it although its answer was lost.
      const isOurs = conflicts(error) && (await readSmall(store, name, MANIFEST_BYTES_MAX)).equals(bytes);
      if (!isOurs) throw error;
    }
    const seenMs = Math.max(this.#head.seenMs, manifest.endedMs);
    // With its manifest the object is stored: if the head cannot be written now, the next one names it.
    await this.#putHead({ ...this.#head, last: number, lastDigest: digest, seenMs }).catch(() => {});
    return manifest;
  }

  async #putHead(head: Head): Promise<void> {
    this.#head = head;
    await this.store.put(HEAD, once(sealed(head).bytes), { ifAbsent: false });
  }

  async #putData(
    number: number,
    kind: string,
    plain: AsyncIterable<Uint8Array>,
    keepUntilMs: number | undefined,
  ): Promise<StoredData> {
    const { store, random, recipients } = this.#options;
    // A name of its own, so that two writers cannot damage each other's data.
    const own = random.uint64().toString(16).padStart(16, "0").slice(0, 8);
    const isEncrypted = recipients.length > 0;
    const suffix = `${kind === "full" ? "full.db" : "delta"}.gz${isEncrypted ? ".age" : ""}`;
    const name = `${String(number).padStart(10, "0")}-${own}.${suffix}`;
    const tally: Tally = { plainBytes: 0, sizeBytes: 0, sha256: "" };
    // Not "if absent": a store may take it and lose its answer, and then it is sent again.
    await store.put(name, storedForm(plain, recipients, tally), { ifAbsent: false, keepUntilMs });
    return { name, ...tally, isEncrypted };
  }
}

/** Everything that a repository has, and what is wrong with it. */
export interface Contents {
  readonly head: Head | undefined;
  /** Ascending; those that are missing or damaged are left out. */
  readonly objects: readonly Sealed[];
  /** Each names an object. */
  readonly problems: readonly string[];
  /** What no manifest names: of interrupted writes, or foreign. */
  readonly strays: readonly StoredObject[];
}

const READERS = 16;

/** Reads all manifests and compares them with each other and with the listing. Throws BackupError of the store. */
export async function readRepository(store: Store): Promise<Contents> {
  for (let tries = 1; ; tries++) {
    const contents = await readOnce(store);
    if (contents.problems.length === 0 || tries === READ_TRIES) return contents;
    // A backup that runs may have added or removed something meanwhile: then the head is another one.
    const { head } = await headOf(store);
    if (JSON.stringify(head) === JSON.stringify(contents.head)) return contents;
  }
}

const READ_TRIES = 5;

async function readOnce(store: Store): Promise<Contents> {
  // The head first: what it names is there when the listing begins.
  const found = await headOf(store);
  const listed = new Map<string, StoredObject>();
  for await (const object of store.list()) listed.set(object.name, object);
  const problems: string[] = found.trouble === undefined ? [] : [found.trouble];
  const numbers = [...listed.keys()].flatMap((name) => (name.endsWith(".json") ? (numberIn(name) ?? []) : []));
  const first = found.head?.first ?? Math.min(...numbers, Number.MAX_SAFE_INTEGER);
  const last = Math.max(found.head?.last ?? 0, ...numbers);
  if (found.head === undefined && found.trouble === undefined && last > 0) problems.push(`${HEAD} is missing`);
  const objects = await readManifests(store, first, last, problems);
  checkChain(objects, found.head, problems);
  const known = new Set<string>([HEAD, VERIFIED]);
  for (const { manifest } of objects) {
    known.add(nameOfManifest(manifest.number));
    if (manifest.data === undefined) continue;
    known.add(manifest.data.name);
    const stored = listed.get(manifest.data.name);
    if (stored === undefined) problems.push(`${manifest.data.name} is missing`);
    else if (stored.sizeBytes !== manifest.data.sizeBytes) {
      problems.push(`${stored.name} has ${stored.sizeBytes} bytes, it had ${manifest.data.sizeBytes}`);
    }
  }
  const strays = [...listed.values()].filter(({ name }) => !known.has(name) && !isDamagedManifest(name, first, last));
  return { head: found.head, objects, problems, strays };
}

/** A manifest that is there but could not be read has its own problem. */
function isDamagedManifest(name: string, first: number, last: number): boolean {
  const number = name.endsWith(".json") ? numberIn(name) : undefined;
  return number !== undefined && number >= first && number <= last;
}

async function readManifests(store: Store, first: number, last: number, problems: string[]): Promise<Sealed[]> {
  const found = new Map<number, Sealed>();
  let next = first;
  const read = async (): Promise<void> => {
    for (let number = next++; number <= last; number = next++) {
      try {
        found.set(number, await manifestOf(store, number));
      } catch (error) {
        if (!(error instanceof BackupError) || error.code === "ERR_BACKUP_STORE") throw error;
        problems.push(error.message);
      }
    }
  };
  await Promise.all(Array.from({ length: READERS }, read));
  return [...found.values()].sort((a, b) => a.manifest.number - b.manifest.number);
}

function checkChain(objects: readonly Sealed[], head: Head | undefined, problems: string[]): void {
  const repository = head?.repository ?? objects[0]?.manifest.repository;
  objects.forEach(({ manifest, digest }, i) => {
    const name = nameOfManifest(manifest.number);
    if (manifest.repository !== repository) problems.push(`${name} belongs to another repository`);
    const before = objects[i - 1];
    if (before?.manifest.number === manifest.number - 1 && before.digest !== manifest.previous) {
      problems.push(`${name} does not follow ${nameOfManifest(before.manifest.number)}: one of them was replaced`);
    }
    if (head?.last === manifest.number && head.lastDigest !== digest) {
      problems.push(`${name} is not the last object that ${HEAD} names: one of them was replaced`);
    }
  });
}

async function manifestOf(store: Store, number: number): Promise<Sealed> {
  const name = nameOfManifest(number);
  return readManifest(name, number, await readSmall(store, name, MANIFEST_BYTES_MAX));
}

/** The head; undefined when there is none, with what is wrong when it cannot be used. */
async function headOf(store: Store): Promise<{ readonly head: Head | undefined; readonly trouble?: string }> {
  try {
    return { head: readHead(await readSmall(store, HEAD, MANIFEST_BYTES_MAX)) };
  } catch (error) {
    if (!(error instanceof BackupError) || error.code === "ERR_BACKUP_STORE") throw error;
    if (error.code !== "ERR_BACKUP_NO_OBJECT") return { head: undefined, trouble: error.message };
    for await (const { name } of store.list()) {
      if (numberIn(name) !== undefined) return { head: undefined, trouble: `${HEAD} is missing` };
    }
    return { head: undefined };
  }
}

/** What the head must have said, from the manifests that are there. */
async function headByListing(store: Store): Promise<Head> {
  const numbers: number[] = [];
  for await (const { name } of store.list()) {
    const number = name.endsWith(".json") ? numberIn(name) : undefined;
    if (number !== undefined) numbers.push(number);
  }
  const [first, last] = [Math.min(...numbers), Math.max(...numbers)];
  if (numbers.length === 0) throw damaged(HEAD, "is missing or damaged, and no manifest is there");
  const { manifest, digest } = await manifestOf(store, last);
  return { format: FORMAT, repository: manifest.repository, first, last, lastDigest: digest, seenMs: manifest.endedMs };
}

const conflicts = (error: unknown): boolean => error instanceof BackupError && error.code === "ERR_BACKUP_CONFLICT";
