/**
 * Compares each member's users and alarms, when it applies a change, with the others' earlier states: both are
 * replicated beside the keys, so they must be equal after the same log entry, also after a restart or a snapshot, and
 * in the backend as in memory.
 */
import { isDeepStrictEqual } from "node:util";
import { AuthBucket } from "../../src/auth/auth-bucket.ts";
import type { AuthStore } from "../../src/auth/store.ts";
import { isFatal } from "../../src/base/fatal.ts";
import type { EtcdServer } from "../../src/server/server.ts";
import type { AuthState } from "./checkers/auth.ts";
import { text } from "./checkers/model.ts";
import { Timeline } from "./checkers/timeline.ts";
import type { Running, SimMachine } from "./machine.ts";
import type { Scheduler } from "./scheduler.ts";

/** Active alarms, as `member/type`, ascending. */
export type AlarmState = readonly string[];

export class SideStates {
  readonly auth = new Timeline<AuthState>({ enabled: false, revision: 1, users: {}, roles: {} });
  readonly alarms = new Timeline<AlarmState>([]);
  /** When a member found that a request exceeds its quota. */
  readonly overQuota: { readonly member: string; readonly moment: number }[] = [];
  readonly #scheduler: Scheduler;
  readonly #report: (checker: string, message: string) => void;
  /** The index at a running member's last check, and its auth enabled flag and revision then. */
  readonly #looked = new WeakMap<EtcdServer, { index: number; auth: string }>();

  constructor(scheduler: Scheduler, report: (checker: string, message: string) => void) {
    this.#scheduler = scheduler;
    this.#report = report;
  }

  /** Observes a member from start to end. */
  observe({ name }: SimMachine, { server }: Running): void {
    const { auth, alarms } = server;
    for (const method of AUTH_CHANGES) {
      this.#after(auth, method, () => {
        const wrong = this.auth.changed(name, server.replication.appliedIndex, authOf(auth), this.#scheduler.moment);
        if (wrong !== undefined) this.#report("auth", wrong);
      });
    }
    const admits = server.quota.admits.bind(server.quota);
    server.quota.admits = (costBytes) => {
      const fits = admits(costBytes);
      // 32 KiB of a file may be uncounted.
      if (!fits && server.replication.backend.sizeBytes() + costBytes >= server.quota.limitBytes)
        this.overQuota.push({ member: name, moment: this.#scheduler.moment });
      return fits;
    };
    for (const method of ["activate", "deactivate"] as const) {
      this.#after(alarms, method, () => {
        const wrong = this.alarms.changed(
          name,
          server.replication.appliedIndex,
          alarmsOf(server),
          this.#scheduler.moment,
        );
        if (wrong !== undefined) this.#report("alarm", wrong);
      });
    }
  }

  /** Compares all members with the known states, as far as they have advanced. */
  step(machines: readonly SimMachine[]): void {
    for (const machine of machines) {
      const { name, running } = machine;
      if (running === undefined) continue;
      const { server } = running;
      const index = server.replication.appliedIndex;
      const looked = this.#looked.get(server);
      if (looked?.index === index) continue;
      const auth = `${server.auth.revision}/${server.auth.enabled}`;
      this.#looked.set(server, { index, auth });
      const wrong = this.alarms.differs(name, index, alarmsOf(server));
      if (wrong !== undefined) this.#report("alarm", wrong);
      const known = this.auth.at(index).state;
      if (looked?.auth === auth && auth === `${known.revision}/${known.enabled}`) continue;
      try {
        this.#compare(name, server);
      } catch (error) {
        // Its database is damaged: the member's own read would have ended it.
        if (!isFatal(error)) throw error;
        machine.crash(error);
      }
    }
  }

  #compare(name: string, server: EtcdServer): void {
    const state = authOf(server.auth);
    const wrong = this.auth.differs(name, server.replication.appliedIndex, state);
    if (wrong !== undefined) this.#report("auth", wrong);
    const stored = storedOf(server);
    if (!isDeepStrictEqual(stored, state))
      this.#report("auth", `${name} has ${JSON.stringify(state)}, but stored ${JSON.stringify(stored)}`);
  }

  /** Calls back after each call of a method that changed something. */
  #after<T extends object>(target: T, name: keyof T, changed: () => void): void {
    const original = target[name] as (...args: unknown[]) => unknown;
    const wrapped = (...args: unknown[]): unknown => {
      const result = original.apply(target, args);
      // A returned problem means that nothing was changed.
      if (typeof result !== "string" && result !== undefined) changed();
      return result;
    };
    Object.defineProperty(target, name, { value: wrapped, configurable: true });
  }
}

const AUTH_CHANGES = [
  "authEnable",
  "authDisable",
  "userAdd",
  "userDelete",
  "userChangePassword",
  "userGrantRole",
  "userRevokeRole",
  "roleAdd",
  "roleDelete",
  "roleGrantPermission",
  "roleRevokePermission",
] as const;

function authOf(auth: AuthStore): AuthState {
  const users = Object.fromEntries(auth.userList().map((user) => [user, [...(auth.userGet(user) ?? [])]]));
  const roles = Object.fromEntries(auth.roleList().map((role) => [role, (auth.roleGet(role) ?? []).map(permissionOf)]));
  return { enabled: auth.enabled, revision: auth.revision, users, roles };
}

function storedOf({ replication: { backend } }: EtcdServer): AuthState {
  const { enabled, revision, users, roles } = new AuthBucket(backend).load();
  const byName = ([a]: [string, unknown], [b]: [string, unknown]): number => (a < b ? -1 : 1);
  return {
    enabled,
    revision,
    users: Object.fromEntries(
      [...users].map(([name, user]) => [name, [...user.roles]] as [string, string[]]).sort(byName),
    ),
    roles: Object.fromEntries(
      [...roles].map(([name, role]) => [name, role.keyPermission.map(permissionOf)] as [string, string[]]).sort(byName),
    ),
  };
}

const permissionOf = (permission: { permType: number; key: Uint8Array; rangeEnd: Uint8Array }): string =>
  `${permission.permType}:${text(permission.key)}:${text(permission.rangeEnd)}`;

function alarmsOf({ alarms }: EtcdServer): AlarmState {
  return alarms
    .get(0)
    .map(({ memberId, alarm }) => `${memberId.toString(16)}/${alarm}`)
    .sort();
}
