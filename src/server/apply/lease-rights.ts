import type { AuthInfo } from "../../auth/auth-info.ts";
import type { AuthProblem } from "../../auth/problems.ts";
import type { AuthStore } from "../../auth/store.ts";
import type { Lease } from "../../lease/lease.ts";
import type { ByteString } from "../../mvcc/model/types.ts";

type Question = "read" | "write";

/** Result of a check of all keys of a lease: up to a version of its key set all are permitted, or one is not. */
interface Looked {
  readonly question: Question;
  readonly username: string;
  readonly authRevision: number;
  version: number;
  denied: ByteString | undefined;
}

/** Users of one lease whose last check is cached. */
const LOOKED_MAX = 16;

/**
 * Whether a user may read, or write, every key of a lease. It is checked for each put with the lease and each renewal,
 * and a lease may have a hundred thousand keys, so results are cached. The answers are those of a full check; the
 * caches of members may differ.
 */
export class LeaseRights {
  readonly #auth: AuthStore;
  readonly #looked = new WeakMap<Lease, Looked[]>();

  constructor(auth: AuthStore) {
    this.#auth = auth;
  }

  check(user: AuthInfo, lease: Lease, question: Question): AuthProblem | null {
    const { keySet } = lease;
    if (keySet === undefined || keySet.keys.size < FEW_KEYS)
      return this.#checkAll(user, lease.keys(), question).problem;
    const { low, high } = keySet;
    const ofAll = this.#ask(user, low, `${high}\0`, question);
    // Any other problem concerns the user, not the keys.
    if (ofAll !== "permissionDenied") return ofAll;
    const known = this.#known(user, lease, question);
    if (known.denied !== undefined && keySet.keys.has(known.denied)) return "permissionDenied";
    const unknown = (known.denied === undefined && keySet.addedSince(known.version)) || keySet.keys;
    const { problem, key } = this.#checkAll(user, unknown, question);
    known.denied = key;
    known.version = keySet.added;
    return problem;
  }

  #checkAll(
    user: AuthInfo,
    keys: Iterable<ByteString>,
    question: Question,
  ): { problem: AuthProblem | null; key: ByteString | undefined } {
    for (const key of keys) {
      const problem = this.#ask(user, key, "", question);
      if (problem !== null) return { problem, key };
    }
    return { problem: null, key: undefined };
  }

  #ask(user: AuthInfo, key: ByteString, end: ByteString, question: Question): AuthProblem | null {
    return question === "write" ? this.#auth.mayWrite(user, key, end) : this.#auth.mayRead(user, key, end);
  }

  /** The cached entry, or a new one that covers no key yet. */
  #known({ username }: AuthInfo, lease: Lease, question: Question): Looked {
    let looked = this.#looked.get(lease);
    if (looked === undefined) this.#looked.set(lease, (looked = []));
    const { revision: authRevision } = this.#auth;
    const at = looked.findIndex((each) => each.username === username && each.question === question);
    if (at >= 0 && looked[at]!.authRevision === authRevision) return looked[at]!;
    if (at >= 0) looked.splice(at, 1);
    else if (looked.length >= LOOKED_MAX) looked.shift();
    const known = { question, username, authRevision, version: UNKNOWN, denied: undefined };
    looked.push(known);
    return known;
  }
}

/** Up to this many keys are checked every time. */
const FEW_KEYS = 32;
/** Older than any recorded addition. */
const UNKNOWN = Number.NEGATIVE_INFINITY;
