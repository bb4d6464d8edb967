/**
 * Locks and elections, as etcd promises them: each waiting client has a key in a queue under one prefix, ordered by
 * create revision, and the owner of the oldest key holds the lock, or leads. This depends only on revisions: two keys
 * are never the oldest of one revision. The holder's clock concerns its lease, which has its own checker.
 */
import { isDeepStrictEqual } from "node:util";
import type { Finding, Moment, Revision } from "./history.ts";
import type { Kv, ModelEvent } from "./model.ts";

/** A lock granted to a client. */
export interface LockLog {
  readonly prefix: string;
  readonly key: string;
  /** The key of the client's lease under the prefix. */
  readonly expectedKey: string;
  readonly revision: number;
  readonly invoked: Moment;
  readonly returned: Moment;
  readonly by: string;
}

/** A lock or leadership released by a client, acknowledged. */
export interface ReleaseLog {
  readonly key: string;
  readonly revision: number;
  readonly returned: Moment;
  readonly by: string;
}

/** An election won by a client. */
export interface CampaignLog extends Omit<LockLog, "revision"> {
  /** Create revision of its key, as reported. */
  readonly rev: number;
}

/** The leader, as reported to a client: undefined for none, without a revision. */
export interface LeaderLog {
  readonly prefix: string;
  readonly kv: Kv | undefined;
  readonly revision: number;
  readonly invoked: Moment;
  readonly returned: Moment;
  readonly by: string;
}

/** The leaders reported on one stream. */
export interface ObserveLog {
  readonly prefix: string;
  readonly by: string;
  readonly seen: { readonly kv: Kv; readonly revision: number; readonly moment: Moment }[];
}

export interface SessionLogs {
  readonly locks: readonly LockLog[];
  readonly releases: readonly ReleaseLog[];
  readonly campaigns: readonly CampaignLog[];
  readonly leaders: readonly LeaderLog[];
  readonly observes: readonly ObserveLog[];
}

export function checkSessions(logs: SessionLogs, revisions: readonly Revision[]): Finding[] {
  return new Check(revisions).run(logs);
}

/** One lifetime of a key in a queue. */
interface Turn {
  readonly key: string;
  readonly create: number;
  /** Its values, by revision. */
  readonly versions: Kv[];
  /** The revision at which it becomes the oldest; Infinity for never. */
  from: number;
  /** The revision that deletes it. */
  until: number;
  untilSeen: Moment;
}

class Check {
  readonly #revisions: readonly Revision[];
  readonly #findings: Finding[] = [];
  readonly #queues = new Map<string, Turn[]>();

  constructor(revisions: readonly Revision[]) {
    this.#revisions = revisions;
  }

  run({ locks, releases, campaigns, leaders, observes }: SessionLogs): Finding[] {
    for (const lock of locks) this.#checkLock(lock);
    for (const release of releases) this.#checkRelease(release);
    for (const campaign of campaigns) this.#checkCampaign(campaign);
    for (const leader of leaders) this.#checkLeader(leader);
    for (const observe of observes) this.#checkObserve(observe);
    return this.#findings;
  }

  #checkLock({ prefix, key, expectedKey, revision, invoked, returned, by }: LockLog): void {
    if (key !== expectedKey) this.#add(`${by} was given the lock as ${key} instead of ${expectedKey}`, returned);
    const turns = this.#queue(prefix).filter((turn) => turn.key === key);
    const held = turns.some(({ from, until, untilSeen }) => from <= revision && from < until && untilSeen >= invoked);
    if (held) return;
    const had = turns.map(({ create, until }) => `from ${create} to ${until}`).join(", ") || "at no time";
    const others = this.#queue(prefix)
      .filter((turn) => turn.key !== key && turn.create <= revision && turn.until > revision)
      .map((turn) => `${turn.key} of ${turn.create}`);
    this.#add(
      `${by} was given the lock at revision ${revision}, but ${key}, which exists ${had}, was not the oldest: ${others.join(", ")}`,
      returned,
    );
  }

  #checkRelease({ key, revision, returned, by }: ReleaseLog): void {
    const prefix = key.slice(0, key.lastIndexOf("/") + 1);
    const left = this.#queue(prefix).find(
      (turn) => turn.key === key && turn.create <= revision && turn.until > revision,
    );
    if (left !== undefined) this.#add(`${by} released ${key} at revision ${revision}, where it still exists`, returned);
  }

  #checkCampaign({ prefix, key, expectedKey, rev, returned, by }: CampaignLog): void {
    const turn = this.#queue(prefix).find((each) => each.key === key && each.create === rev);
    if (key !== expectedKey || turn === undefined) {
      this.#add(
        `${by} won as ${key} of revision ${rev}; its key is ${expectedKey}, and that revision is not its`,
        returned,
      );
    } else if (turn.from === Number.POSITIVE_INFINITY || this.#seen(turn.from) > returned) {
      this.#add(`${by} won as ${key} of revision ${rev} while older ones waited; its turn is ${turn.from}`, returned);
    }
  }

  #checkLeader({ prefix, kv, revision, invoked, returned, by }: LeaderLog): void {
    const floor = this.#lastSeenBefore(invoked);
    if (kv === undefined) {
      for (let each = floor; each <= this.#lastSeenBefore(returned + 1); each++) {
        if (this.#leaderAt(prefix, each) === undefined) return;
      }
      this.#add(`${by} says that nobody leads, but somebody did all the time from revision ${floor} on`, returned);
      return;
    }
    const expected = this.#leaderAt(prefix, revision);
    if (!isDeepStrictEqual(expected, kv)) {
      this.#add(`${by} says that ${show(kv)} leads at revision ${revision}, where ${show(expected)} does`, returned);
    } else if (revision < floor) {
      this.#add(`${by} tells the leader of revision ${revision}, but ${floor} was known before`, returned);
    }
  }

  #checkObserve({ prefix, seen, by }: ObserveLog): void {
    let last: Kv | undefined;
    for (const { kv, revision, moment } of seen) {
      const isLeader = [kv.mod, revision].some((each) => this.#turnAt(prefix, each)?.key === kv.key);
      const written = this.#queue(prefix).some(
        (turn) => turn.key === kv.key && turn.versions.some((version) => isDeepStrictEqual(version, kv)),
      );
      if (!isLeader || !written) {
        this.#add(`${by} is told that ${show(kv)} leads, which it does not at revision ${revision}`, moment);
      }
      if (last !== undefined && kv.create < last.create) {
        this.#add(`${by} is told of ${show(kv)} after ${show(last)}, which leads later`, moment);
      } else if (last !== undefined && kv.create === last.create && kv.version !== last.version + 1) {
        this.#add(`${by} is told of ${show(kv)} right after ${show(last)}`, moment);
      }
      last = kv;
    }
  }

  /** All keys that ever waited under a prefix, in order of revision. */
  #queue(prefix: string): Turn[] {
    let queue = this.#queues.get(prefix);
    if (queue !== undefined) return queue;
    const living = new Map<string, Turn>();
    queue = [];
    for (const { revision, events, seen } of this.#revisions) {
      for (const event of events) {
        if (event.key.startsWith(prefix)) step(event, revision, seen);
      }
    }
    let free = 0;
    for (const turn of queue) {
      turn.from = Math.max(turn.create, free);
      free = Math.max(free, turn.until);
    }
    this.#queues.set(prefix, queue);
    return queue;

    function step({ key, kv }: ModelEvent, revision: number, seen: Moment): void {
      const turn = living.get(key);
      if (kv === undefined) {
        living.delete(key);
        if (turn !== undefined) Object.assign(turn, { until: revision, untilSeen: seen });
      } else if (turn !== undefined) turn.versions.push(kv);
      else {
        const never = Number.POSITIVE_INFINITY;
        const added: Turn = { key, create: revision, versions: [kv], from: never, until: never, untilSeen: never };
        living.set(key, added);
        queue!.push(added);
      }
    }
  }

  #turnAt(prefix: string, revision: number): Turn | undefined {
    return this.#queue(prefix).find(({ create, until }) => create <= revision && until > revision);
  }

  #leaderAt(prefix: string, revision: number): Kv | undefined {
    return this.#turnAt(prefix, revision)?.versions.findLast(({ mod }) => mod <= revision);
  }

  /** When a revision was first seen. */
  #seen(revision: number): Moment {
    return this.#revisions[revision - 2]?.seen ?? 0;
  }

  #lastSeenBefore(moment: Moment): number {
    const next = this.#revisions.findIndex(({ seen }) => seen >= moment);
    return next < 0 ? this.#revisions.length + 1 : next + 1;
  }

  #add(message: string, moment: Moment): void {
    this.#findings.push({ checker: "session", message, moment });
  }
}

const show = (kv: Kv | undefined): string =>
  kv === undefined ? "nobody" : `${kv.key}=${kv.value}@${kv.mod}/${kv.create}/${kv.version}`;
