/**
 * Users: a client changes users, roles and permissions, and enables and disables authentication; tokens, which users
 * get at one member and use at another, then authenticate all other clients' requests.
 */
import { createHash } from "node:crypto";
import type { PasswordHasher } from "../../src/auth/passwords.ts";
import type { Clock } from "../../src/base/clock.ts";
import type { Random } from "../../src/base/random.ts";
import { Permission } from "../../src/proto/authpb.ts";
import {
  AuthDisableRequest,
  AuthEnableRequest,
  AuthenticateRequest,
  AuthRoleAddRequest,
  AuthRoleDeleteRequest,
  AuthRoleGrantPermissionRequest,
  AuthRoleRevokePermissionRequest,
  AuthService,
  AuthStatusRequest,
  AuthUserAddRequest,
  AuthUserChangePasswordRequest,
  AuthUserDeleteRequest,
  AuthUserGrantRoleRequest,
  AuthUserRevokeRoleRequest,
} from "../../src/proto/etcdserverpb.ts";
import type { AuthAnswer, AuthState, Credential, UsedCredential } from "./checkers/auth.ts";
import { bytes, type ClientWorld } from "./clients.ts";
import type { Credentials, Method, Reply } from "./connection.ts";
import type { SimMachine } from "./machine.ts";
import type { SimRandom } from "./random.ts";
import type { UserStep } from "./scenes.ts";

const CALL_MS = 12_000;
/** Interval of a user's attempts to get a token. */
const LOGIN_MS = 300;
/** Delay before a change is tried at another member. */
const AGAIN_MS = 150;
/** Errors after which the outcome is unknown, or certainly without effect. */
const MAY_TRY_AGAIN = ["connection refused", "the connection broke", "leader", "timed out", "token", "name is empty"];
const NAMES = ["u0", "u1", "u2"] as const;

export class Users implements Credentials {
  readonly used: UsedCredential[] = [];
  readonly answers: AuthAnswer[] = [];
  readonly #world: ClientWorld;
  readonly #random: SimRandom;
  readonly #tokens = new Map<string, Credential>();
  readonly #loggingIn = new Set<string>();
  /** The possible passwords of a user, the latest first. */
  readonly #passwords = new Map<string, string[]>();

  constructor(world: ClientWorld, random: SimRandom) {
    this.#world = world;
    this.#random = random;
  }

  /** The operator acts as root. */
  token(): string | undefined {
    return this.root.token;
  }

  get root(): Credential {
    return this.#of("root");
  }

  /** The identity of the next request. */
  pick(): Credential {
    const dice = this.#random.below(10);
    if (dice < 4) return this.root;
    if (dice < 9) return this.#of(this.#random.pick(NAMES));
    return { user: "", token: undefined, revision: undefined };
  }

  /** A member refused a request: if its token is the reason, the user gets a new one. */
  refused(token: string | undefined, message: string): void {
    if (!TOKEN_PROBLEMS.some((text) => message.includes(text))) return;
    for (const [user, credential] of this.#tokens) if (credential.token === token) this.#tokens.delete(user);
    for (const user of ["root", ...NAMES]) if (!this.#tokens.has(user)) this.#logIn(user);
  }

  do(step: UserStep): void {
    const machine = this.#world.machineAt(step.target);
    if (machine === undefined) return;
    switch (step.kind) {
      case "login":
        this.#logIn(step.user, machine);
        return;
      case "authStatus":
        this.#askStatus(machine);
        return;
      case "enableAuth":
        this.#change(
          machine,
          AuthService.UserAdd,
          AuthUserAddRequest.create({ name: "root", password: "p" }),
          has("root"),
        );
        this.#world.side.scheduler.after(50, () => {
          const request = AuthUserGrantRoleRequest.create({ user: "root", role: "root" });
          this.#change(
            machine,
            AuthService.UserGrantRole,
            request,
            (state) => state.users["root"]?.includes("root") === true,
          );
        });
        this.#world.side.scheduler.after(150, () =>
          this.#change(machine, AuthService.AuthEnable, AuthEnableRequest.create(), ({ enabled }) => enabled),
        );
        return;
      case "disableAuth":
        this.#change(machine, AuthService.AuthDisable, AuthDisableRequest.create(), ({ enabled }) => !enabled);
        return;
      case "user":
        this.#changeUser(machine, step);
        return;
      case "role":
        this.#changeRole(machine, step);
        return;
    }
  }

  #changeUser(machine: SimMachine, { change, user, role, password }: Extract<UserStep, { kind: "user" }>): void {
    switch (change) {
      case "add":
        this.#passwords.set(user, [password, ...this.#passwordsOf(user)]);
        this.#change(machine, AuthService.UserAdd, AuthUserAddRequest.create({ name: user, password }), has(user));
        return;
      case "password": {
        this.#passwords.set(user, [password, ...this.#passwordsOf(user)]);
        const request = AuthUserChangePasswordRequest.create({ name: user, password });
        this.#change(machine, AuthService.UserChangePassword, request, has(user));
        return;
      }
      case "delete": {
        const request = AuthUserDeleteRequest.create({ name: user });
        this.#change(machine, AuthService.UserDelete, request, (state) => !has(user)(state));
        return;
      }
      case "grant": {
        const request = AuthUserGrantRoleRequest.create({ user, role });
        this.#change(
          machine,
          AuthService.UserGrantRole,
          request,
          (state) => state.users[user]?.includes(role) === true,
        );
        return;
      }
      case "revoke": {
        const request = AuthUserRevokeRoleRequest.create({ name: user, role });
        this.#change(
          machine,
          AuthService.UserRevokeRole,
          request,
          (state) => state.users[user]?.includes(role) === false,
        );
      }
    }
  }

  #changeRole(machine: SimMachine, { change, role, key, end, type }: Extract<UserStep, { kind: "role" }>): void {
    const permissions = (state: AuthState): readonly string[] => state.roles[role] ?? [];
    switch (change) {
      case "add": {
        const request = AuthRoleAddRequest.create({ name: role });
        this.#change(machine, AuthService.RoleAdd, request, ({ roles }) => roles[role] !== undefined);
        return;
      }
      case "delete": {
        const request = AuthRoleDeleteRequest.create({ role });
        this.#change(machine, AuthService.RoleDelete, request, ({ roles }) => roles[role] === undefined);
        return;
      }
      case "grant": {
        const perm = Permission.create({ permType: type, key: bytes(key), rangeEnd: bytes(end) });
        const request = AuthRoleGrantPermissionRequest.create({ name: role, perm });
        const granted = `${type}:${key}:${end}`;
        this.#change(machine, AuthService.RoleGrantPermission, request, (state) =>
          permissions(state).includes(granted),
        );
        return;
      }
      case "revoke": {
        const request = AuthRoleRevokePermissionRequest.create({ role, key: bytes(key), rangeEnd: bytes(end) });
        const isGone = (state: AuthState): boolean =>
          !permissions(state).some((each) => each.endsWith(`:${key}:${end}`));
        this.#change(machine, AuthService.RoleRevokePermission, request, isGone);
      }
    }
  }

  #change<Q>(
    machine: SimMachine,
    method: Method<Q, unknown>,
    request: Q,
    holds: (state: AuthState) => boolean,
    tries = 8,
  ): void {
    const invoked = this.#moment;
    const what = `${method.path} at ${machine.name} of ${JSON.stringify(request)}`;
    this.#world.trace(`users: ${what}`);
    this.#world.side.call(machine.service, method, request, CALL_MS, (reply: Reply<unknown>) => {
      this.#world.trace(`users: ${method.path} at ${machine.name}: ${reply.ok ? "ok" : reply.message}`);
      if (reply.ok) this.answers.push({ what, invoked, returned: this.#moment, holds });
      else if (tries > 1 && MAY_TRY_AGAIN.some((text) => reply.message.includes(text))) {
        const again = (): void =>
          this.#change(this.#random.pick(this.#world.machines()), method, request, holds, tries - 1);
        this.#world.side.scheduler.after(AGAIN_MS, again);
      }
    });
  }

  #askStatus(machine: SimMachine): void {
    const invoked = this.#moment;
    this.#world.side.call(machine.service, AuthService.AuthStatus, AuthStatusRequest.create(), CALL_MS, (reply) => {
      if (!reply.ok) return;
      const { enabled, authRevision } = reply.response;
      const what = `that users count: ${enabled}, at revision ${authRevision}, by ${machine.name},`;
      const holds = (state: AuthState): boolean => state.enabled === enabled && state.revision === authRevision;
      this.answers.push({ what, invoked, returned: this.#moment, holds });
    });
  }

  /** Requests a token at some member. */
  #logIn(user: string, machine = this.#random.pick(this.#world.machines())): void {
    if (this.#loggingIn.has(user)) return;
    this.#loggingIn.add(user);
    const { side, trace } = this.#world;
    const passwords = this.#passwordsOf(user);
    const request = AuthenticateRequest.create({ name: user, password: passwords[0]! });
    trace(`users: ${user} logs in at ${machine.name}`);
    side.call(machine.service, AuthService.Authenticate, request, CALL_MS, (reply) => {
      trace(`users: ${user} at ${machine.name}: ${reply.ok ? "has a token" : reply.message}`);
      if (reply.ok) {
        const { token } = reply.response;
        this.#tokens.set(user, { user, token, revision: signedRevision(token) });
        // The password was correct in the member's state.
      } else if (reply.message.includes("authentication failed") && passwords.length > 1) {
        this.#passwords.set(user, [...passwords.slice(1), passwords[0]!].slice(0, PASSWORDS_MAX));
      }
      side.scheduler.after(LOGIN_MS, () => this.#loggingIn.delete(user));
    });
  }

  #of(user: string): Credential {
    return this.#tokens.get(user) ?? { user, token: undefined, revision: undefined };
  }

  #passwordsOf(user: string): string[] {
    return this.#passwords.get(user) ?? ["p"];
  }

  get #moment(): number {
    return this.#world.side.scheduler.moment;
  }
}

/** Passwords that a user tries in turn. */
const PASSWORDS_MAX = 4;

/** Errors about an invalid or missing token. */
const TOKEN_PROBLEMS = ["invalid auth token", "revision of auth store is old", "user name is empty"];

const has =
  (user: string) =>
  ({ users }: AuthState): boolean =>
    users[user] !== undefined;

/** Signed tokens contain the auth revision for which they are valid. */
function signedRevision(token: string): number | undefined {
  const body = token.split(".");
  if (body.length !== 3) return undefined;
  return (JSON.parse(Buffer.from(body[1]!, "base64url").toString()) as { revision: number }).revision;
}

/** Hashes in virtual time: bcrypt would take real milliseconds, and is not under test here. */
export class SimHasher implements PasswordHasher {
  readonly #clock: Clock;
  readonly #random: Random;

  constructor(clock: Clock, random: Random) {
    this.#clock = clock;
    this.#random = random;
  }

  async hash(password: string): Promise<{ readonly hash: string }> {
    await this.#work();
    return { hash: this.hashNow(password) };
  }

  hashNow(password: string): string {
    return hashWith(`${this.#random.below(1e6)}`, password);
  }

  async matches(password: string, hash: Uint8Array): Promise<boolean> {
    await this.#work();
    const stored = Buffer.from(hash).toString();
    return hashWith(stored.split("$")[0]!, password) === stored;
  }

  #work(): Promise<void> {
    return new Promise((resolve) => this.#clock.after(5 + this.#random.below(50), resolve));
  }
}

const hashWith = (salt: string, password: string): string =>
  `${salt}$${createHash("sha256").update(`${salt} ${password}`).digest("hex")}`;
