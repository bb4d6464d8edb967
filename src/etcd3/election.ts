/**
 * Elections by the keys of the module `etcd3`, so that both can take part in one: each candidate has a key below
 * `election/<name>/`, named for its lease, and the oldest leads. A candidate is elected when no older key is left, which
 * it looks at again after every change, so that there are never two.
 */
import { EventEmitter } from "node:events";
import { EtcdLeaseInvalidError, NotCampaigningError } from "./errors.ts";
import type { Lease } from "./lease.ts";
import type { IKeyValue } from "./messages.ts";
import type { Namespace } from "./namespace.ts";
import { toBuffer } from "./util.ts";
import type { Watcher } from "./watch.ts";

export interface CampaignEvents {
  elected: [];
  error: [error: Error];
  /** It has its place, and somebody else leads. */
  _isWaiting: [];
}

export interface ObserverEvents {
  change: [value: string | undefined];
  disconnected: [error: Error];
  error: [error: Error];
}

const TTL_SECONDS = 60;

/** Follows who leads. */
export class ElectionObserver extends EventEmitter<ObserverEvents> {
  readonly #namespace: Namespace;
  #leading: IKeyValue | undefined;
  #watcher: Watcher | undefined;
  #isOver = false;
  #looking: Promise<void> = Promise.resolve();

  constructor(namespace: Namespace) {
    super();
    this.#namespace = namespace;
  }

  get hasLeader(): boolean {
    return this.#leading !== undefined;
  }

  /** Begins; resolves when it knows the leader. */
  async start(): Promise<this> {
    this.#watcher = await this.#namespace.watch().prefix("").create();
    this.#watcher.on("data", () => {
      this.#looking = this.#looking.then(() => this.#look());
    });
    this.#watcher.on("disconnected", (error) => this.emit("disconnected", error));
    this.#watcher.on("error", (error) => this.emit("error", error));
    await this.#look();
    return this;
  }

  async cancel(): Promise<void> {
    this.#isOver = true;
    await this.#watcher?.cancel();
  }

  leader(encoding: "buffer"): Buffer | undefined;
  leader(encoding?: BufferEncoding): string | undefined;
  leader(encoding: BufferEncoding | "buffer" = "utf8"): string | Buffer | undefined {
    const value = this.#leading?.value;
    return encoding === "buffer" ? value : value?.toString(encoding);
  }

  async #look(): Promise<void> {
    try {
      const found = await oldest(this.#namespace);
      if (this.#isOver) return;
      const before = this.#leading;
      this.#leading = found;
      const isSame = before?.create_revision === found?.create_revision && before?.mod_revision === found?.mod_revision;
      if (!isSame && this.#watcher !== undefined) this.emit("change", found?.value.toString());
    } catch (error) {
      if (!this.#isOver && error instanceof Error && this.listenerCount("error") > 0) this.emit("error", error);
    }
  }
}

/** One candidate. */
export class Campaign extends EventEmitter<CampaignEvents> {
  readonly #namespace: Namespace;
  readonly #lease: Lease;
  readonly #placed: Promise<string>;
  #value: Buffer;
  /** The revision of its key; undefined once it has resigned or lost it. */
  #revision: string | undefined;
  #isElected = false;
  #watcher: Watcher | undefined;
  #failure: Error | undefined;

  constructor(namespace: Namespace, value: string | Buffer, ttl: number) {
    super();
    this.#namespace = namespace;
    this.#value = toBuffer(value);
    this.#lease = namespace.lease(ttl);
    this.#lease.on("lost", (error) => this.#fail(error));
    this.#placed = this.#place();
    this.#placed.then(
      (key) => this.#wait(key).catch((error: Error) => this.#fail(error)),
      (error: Error) => this.#fail(error),
    );
  }

  /** Resolves when it is elected. */
  wait(): Promise<this> {
    return new Promise((resolve, reject) => {
      if (this.#isElected) return resolve(this);
      if (this.#failure !== undefined) return reject(this.#failure);
      this.once("elected", () => resolve(this));
      this.once("error", reject);
    });
  }

  /** Says something else of itself. Rejects with NotCampaigningError when its key is not its own any more. */
  async proclaim(value: string | Buffer): Promise<void> {
    const key = await this.#placed;
    const revision = this.#revision;
    if (revision === undefined) throw notCampaigning();
    this.#value = toBuffer(value);
    const put = this.#namespace.put(key).value(this.#value).lease(this.#lease.grant());
    const { succeeded } = await this.#namespace.if(key, "Create", "==", revision).then(put).commit();
    if (succeeded) return;
    this.#revision = undefined;
    await this.resign().catch(() => {});
    throw notCampaigning();
  }

  /** The key that it has. */
  async getCampaignKey(): Promise<string> {
    const key = await this.#placed;
    return Buffer.concat([this.#namespace.prefix, toBuffer(key)]).toString();
  }

  async resign(): Promise<void> {
    this.#revision = undefined;
    await this.#watcher?.cancel();
    if (!this.#lease.revoked()) await this.#lease.revoke();
  }

  async #place(): Promise<string> {
    const key = await this.#lease.grant();
    const put = this.#namespace.put(key).value(this.#value).lease(key);
    const { header, succeeded, responses } = await this.#namespace
      .if(key, "Create", "==", 0)
      .then(put)
      .else(this.#namespace.get(key))
      .commit();
    this.#revision = succeeded ? header.revision : responses[0]?.response_range.kvs[0]?.create_revision;
    return key;
  }

  async #wait(key: string): Promise<void> {
    if ((await this.#lookAround(key)) || this.#revision === undefined) return;
    const watcher = await this.#namespace.watch().prefix("").only("delete").create();
    this.#watcher = watcher;
    let looking: Promise<unknown> = Promise.resolve();
    const look = (): void => {
      looking = looking.then(() => this.#lookAround(key)).catch((error: Error) => this.#fail(error));
    };
    watcher.on("delete", look);
    watcher.on("error", (error) => this.#fail(error));
    look();
    this.emit("_isWaiting");
  }

  /** Whether it leads, which is then told. */
  async #lookAround(key: string): Promise<boolean> {
    if (this.#isElected || this.#revision === undefined) return this.#isElected;
    const first = await oldest(this.#namespace);
    if (this.#revision === undefined) return false;
    if (first === undefined || first.create_revision !== this.#revision) {
      if (!(await this.#namespace.get(key).exists())) throw new EtcdLeaseInvalidError(key);
      return false;
    }
    this.#isElected = true;
    await this.#watcher?.cancel();
    this.emit("elected");
    return true;
  }

  #fail(error: Error): void {
    if (this.#failure !== undefined || this.#revision === undefined) {
      this.#failure ??= error;
      return;
    }
    this.#failure = error;
    this.#revision = undefined;
    void this.#watcher?.cancel();
    if (this.listenerCount("error") > 0) this.emit("error", error);
  }
}

export class Election {
  static readonly prefix = "election";
  readonly name: string;
  readonly #ttl: number;
  readonly #namespace: Namespace;

  constructor(parent: Namespace, name: string, ttl = TTL_SECONDS) {
    this.name = name;
    this.#ttl = ttl;
    this.#namespace = parent.namespace(`${Election.prefix}/${name}/`);
  }

  campaign(value: string | Buffer): Campaign {
    return new Campaign(this.#namespace, value, this.#ttl);
  }

  leader(encoding: "buffer"): Promise<Buffer | undefined>;
  leader(encoding?: BufferEncoding): Promise<string | undefined>;
  async leader(encoding: BufferEncoding | "buffer" = "utf8"): Promise<string | Buffer | undefined> {
    const value = (await oldest(this.#namespace))?.value;
    return encoding === "buffer" ? value : value?.toString(encoding);
  }

  observe(): Promise<ElectionObserver> {
    return new ElectionObserver(this.#namespace).start();
  }
}

async function oldest(namespace: Namespace): Promise<IKeyValue | undefined> {
  const { kvs } = await namespace.getAll().sort("Create", "Ascend").limit(1).exec();
  return kvs[0];
}

const notCampaigning = (): NotCampaigningError =>
  new NotCampaigningError("the campaign is over: it has resigned, or its key or lease is gone");
