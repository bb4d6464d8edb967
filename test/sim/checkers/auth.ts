/**
 * Users' permissions as etcd's documentation defines them, on a model that shares no code with the server. A request is
 * judged by the users and roles of some moment between its start and its end: one that was answered must have been
 * allowed at one such moment, one that was refused must not have been allowed at all of them.
 */
import type { PutRequest, RequestOp, TxnRequest } from "../../../src/proto/etcdserverpb.ts";
import type { Finding, Moment, Operation } from "./history.ts";
import { compareText, inRange, type KvRequest, text } from "./model.ts";
import type { Stage, Timeline } from "./timeline.ts";

export interface AuthState {
  readonly enabled: boolean;
  readonly revision: number;
  /** Roles by user, both ascending. */
  readonly users: Readonly<Record<string, readonly string[]>>;
  /** Permissions by role, as `type:key:end` (0 read, 1 write, 2 both). */
  readonly roles: Readonly<Record<string, readonly string[]>>;
}

/** The identity of a request. */
export interface Credential {
  readonly user: string;
  /** Undefined: no user. */
  readonly token: string | undefined;
  /** Auth revision for which a signed token is valid; undefined for a token valid at any revision. */
  readonly revision: number | undefined;
}

export interface UsedCredential {
  readonly operation: Operation;
  readonly credential: Credential;
}

/** An acknowledged change of users or roles, or information about them given to a client. */
export interface AuthAnswer {
  readonly what: string;
  readonly invoked: Moment;
  readonly returned: Moment;
  /** Whether the state fits the answer; must hold at some moment in between. */
  readonly holds: (state: AuthState) => boolean;
}

export function checkAuth(input: {
  readonly timeline: Timeline<AuthState>;
  readonly used: readonly UsedCredential[];
  readonly answers: readonly AuthAnswer[];
  readonly isSerializable: (operation: Operation) => boolean;
}): Finding[] {
  const findings: Finding[] = [];
  const add = (message: string, moment: Moment): void => void findings.push({ checker: "auth", message, moment });
  for (const { operation, credential } of input.used) {
    const { action, outcome, invoked, returned } = operation;
    if (action.kind === "compact" || action.kind === "other") continue;
    const stages = input.timeline.during(invoked, returned, input.isSerializable(operation));
    const name = `operation ${operation.id} (${action.kind} by ${credential.token === undefined ? "nobody" : credential.user} at ${operation.member})`;
    if (outcome.kind === "ok" && !stages.some(({ state }) => isAllowed(state, credential, action))) {
      add(`${name} was answered, but must be refused by ${show(stages)}`, returned);
    }
    if (outcome.kind !== "refused") continue;
    const { error } = outcome;
    if (error.includes("permission denied")) {
      if (!hasLease(action) && stages.every(({ state }) => mayDo(state, credential.user, action)))
        add(`${name} was refused, but is allowed by ${show(stages)}`, returned);
    } else if (error.includes("user name is empty") || error.includes("revision of auth store is old")) {
      if (!input.timeline.during(invoked, returned, true).some(({ state }) => state.enabled))
        add(`${name} was refused with ${error}, but users never counted`, returned);
    }
  }
  for (const { what, invoked, returned, holds } of input.answers) {
    const stages = input.timeline.during(invoked, returned, false);
    if (!stages.some(({ state }) => holds(state))) add(`${what} was answered, but there was ${show(stages)}`, returned);
  }
  return findings;
}

const show = (stages: readonly Stage<AuthState>[]): string =>
  stages.map(({ index, state }) => `${JSON.stringify(state)} of index ${index}`).join(" and ");

function isAllowed(state: AuthState, { user, token, revision }: Credential, action: KvRequest): boolean {
  if (!state.enabled) return true;
  if (token === undefined || (revision !== undefined && revision < state.revision)) return false;
  return mayDo(state, user, action);
}

function mayDo(state: AuthState, user: string, action: KvRequest): boolean {
  if (!state.enabled) return true;
  const roles = state.users[user];
  if (roles === undefined) return false;
  if (roles.includes("root")) return true;
  const rights = new Rights(roles.flatMap((role) => state.roles[role] ?? []));
  switch (action.kind) {
    case "put":
      return rights.put(action.request);
    case "delete":
      return rights.deletes(action.request);
    case "range":
      return rights.covers(READ, text(action.request.key), text(action.request.rangeEnd));
    case "txn":
      return rights.txn(action.request);
  }
}

const READ = 0;
const WRITE = 1;

class Rights {
  readonly #permissions: { readonly type: number; readonly key: string; readonly end: string }[];

  constructor(permissions: readonly string[]) {
    this.#permissions = permissions.map((permission) => {
      const [type, key, end] = permission.split(":");
      return { type: Number(type), key: key!, end: end! };
    });
  }

  put(request: PutRequest): boolean {
    const key = text(request.key);
    return this.covers(WRITE, key, "") && (!request.prevKv || this.covers(READ, key, ""));
  }

  deletes(request: { readonly key: Uint8Array; readonly rangeEnd: Uint8Array; readonly prevKv: boolean }): boolean {
    const [key, end] = [text(request.key), text(request.rangeEnd)];
    return this.covers(WRITE, key, end) && (!request.prevKv || this.covers(READ, key, end));
  }

  /** Every comparison and every operation, executed or not. */
  txn({ compare, success, failure }: TxnRequest): boolean {
    return (
      compare.every(({ key, rangeEnd }) => this.covers(READ, text(key), text(rangeEnd))) &&
      [...success, ...failure].every((op) => this.#op(op))
    );
  }

  #op({ requestPut, requestDeleteRange, requestRange, requestTxn }: RequestOp): boolean {
    if (requestPut !== undefined) return this.put(requestPut);
    if (requestDeleteRange !== undefined) return this.deletes(requestDeleteRange);
    if (requestRange !== undefined) return this.covers(READ, text(requestRange.key), text(requestRange.rangeEnd));
    return requestTxn === undefined || this.txn(requestTxn);
  }

  /** True when the permissions of a kind together cover every key of a range. */
  covers(kind: number, key: string, end: string): boolean {
    const able = this.#permissions.filter(({ type }) => type === kind || type === 2);
    if (end === "") return able.some((each) => inRange(key, each.key, each.end));
    const spans = able
      .map((each) => ({ from: each.key, to: each.end === "" ? `${each.key}\0` : each.end }))
      .sort((a, b) => compareText(a.from, b.from));
    let free = key;
    for (const { from, to } of spans) {
      if (from > free) break;
      if (to === "\0") return true;
      if (to > free) free = to;
    }
    return end !== "\0" && free >= end;
  }
}

/** Permissions on the lease's other keys matter too, and are not in the model. */
function hasLease(action: KvRequest): boolean {
  if (action.kind === "put") return action.request.lease !== 0n;
  return action.kind === "txn" && [...action.request.success, ...action.request.failure].some(opHasLease);
}

const opHasLease = ({ requestPut, requestTxn }: RequestOp): boolean =>
  (requestPut !== undefined && requestPut.lease !== 0n) ||
  (requestTxn !== undefined && [...requestTxn.success, ...requestTxn.failure].some(opHasLease));
