import { goSort } from "../base/go-sort.ts";
import type { Logger } from "../base/log.ts";
import { type Backend, KEY_LENGTH_MAX } from "../mvcc/backend/backend.ts";
import type { ByteString } from "../mvcc/model/types.ts";
import { Permission, Permission_Type as PermissionType, Role, User, UserAddOptions } from "../proto/authpb.ts";
import type {
  AuthRoleAddRequest,
  AuthRoleDeleteRequest,
  AuthRoleGrantPermissionRequest,
  AuthRoleRevokePermissionRequest,
  AuthUserAddRequest,
  AuthUserChangePasswordRequest,
  AuthUserDeleteRequest,
  AuthUserGrantRoleRequest,
  AuthUserRevokeRoleRequest,
} from "../proto/etcdserverpb.ts";
import { AuthBucket } from "./auth-bucket.ts";
import { AuthInfo } from "./auth-info.ts";
import type { PasswordHasher } from "./passwords.ts";
import { hasRootRole, isValidRange, ROOT, UserPermissions } from "./permissions.ts";
import type { AuthProblem } from "./problems.ts";
import type { TokenProvider } from "./token-provider.ts";

export interface AuthStoreOptions {
  readonly backend: Backend;
  readonly logger: Logger;
  readonly tokens: TokenProvider;
  readonly passwords: PasswordHasher;
}

/**
 * Users, roles, permissions, and whether authentication is enabled: replicated state beside the key-value store.
 * Changes come through the log, in its order, so each has the same outcome on every member. Each increments the
 * revision, which invalidates older decisions and signed tokens.
 *
 * Methods return the problem, or null for success. Source: etcd `server/auth/store.go`.
 */
export class AuthStore {
  /** False means that everyone may do everything; the request path then checks nothing else. */
  enabled = false;
  revision = 0;
  readonly tokens: TokenProvider;
  readonly passwords: PasswordHasher;

  readonly #logger: Logger;
  #bucket: AuthBucket;
  #users = new Map<string, User>();
  #roles = new Map<string, Role>();
  /** Built on a user's first request, dropped with every change. */
  readonly #permissions = new Map<string, UserPermissions>();

  constructor(options: AuthStoreOptions) {
    this.tokens = options.tokens;
    this.passwords = options.passwords;
    this.#logger = options.logger;
    this.#bucket = new AuthBucket(options.backend);
    this.#load();
    // As in etcd, so that revision 0 always means a request without a user.
    if (this.revision === 0) this.#count();
  }

  /** Loads its state from a database that replaced the previous one. */
  recover(backend: Backend): void {
    this.#bucket = new AuthBucket(backend);
    this.#load();
  }

  close(): void {
    this.tokens.disable();
  }

  // ---- enabling

  authEnable(): AuthProblem | null {
    if (this.enabled) {
      this.#logger.info("authentication is already enabled; ignored auth enable request");
      return null;
    }
    const root = this.#users.get(ROOT);
    if (root === undefined) return "rootUserNotExist";
    if (!hasRootRole(root)) return "rootRoleNotExist";
    this.#bucket.saveEnabled(true);
    this.enabled = true;
    this.tokens.enable();
    this.#logger.info("enabled authentication");
    return null;
  }

  authDisable(): null {
    if (!this.enabled) return null;
    this.#bucket.saveEnabled(false);
    this.#count();
    this.enabled = false;
    this.tokens.disable();
    this.#logger.info("disabled authentication");
    return null;
  }

  // ---- identity

  /** The hash to compare a password with, and the revision at which it is current. */
  passwordOf(username: string): { readonly hash: Uint8Array; readonly revision: number } | AuthProblem {
    if (!this.enabled) return "authNotEnabled";
    const user = this.#users.get(username);
    if (user === undefined) return "authFailed";
    if (user.options?.noPassword === true) return "noPasswordUser";
    return { hash: user.password, revision: this.revision };
  }

  /** The token of a user whose password was checked before the request was proposed; the entry is at `index`. */
  authenticate(username: string, prefix: string, index: number): { readonly token: string } | AuthProblem {
    if (!this.enabled) return "authNotEnabled";
    const user = this.#users.get(username);
    if (user === undefined || user.options?.noPassword === true) return "authFailed";
    return this.tokens.assign(username, this.revision, prefix, index);
  }

  /** The current owner of a token. */
  infoOf(token: string): AuthInfo | undefined {
    return this.tokens.info(token, this.revision);
  }

  /** Used for the member's own requests, such as revoking an expired lease. */
  get root(): AuthInfo {
    return new AuthInfo(ROOT, this.revision);
  }

  // ---- permissions

  mayRead(user: AuthInfo, key: ByteString, rangeEnd: ByteString): AuthProblem | null {
    return this.#check(user, key, rangeEnd, false);
  }

  mayWrite(user: AuthInfo, key: ByteString, rangeEnd: ByteString): AuthProblem | null {
    return this.#check(user, key, rangeEnd, true);
  }

  /** For operations that need the role root. */
  mayAdminister(user: AuthInfo): AuthProblem | null {
    if (!this.enabled) return null;
    if (user.username === "") return "userEmpty";
    const found = this.#users.get(user.username);
    if (found === undefined) return "userNotFound";
    return hasRootRole(found) ? null : "permissionDenied";
  }

  #check(user: AuthInfo, key: ByteString, rangeEnd: ByteString, writes: boolean): AuthProblem | null {
    if (!this.enabled) return null;
    if (user.revision === 0) return "userEmpty";
    if (user.revision < this.revision) {
      this.#logger.warn("request auth revision is less than current node auth revision", {
        "current node auth revision": this.revision,
        "request auth revision": user.revision,
        "request key": Buffer.from(key, "latin1").toString(),
        error: "auth: revision in header is old",
      });
      return "authOldRevision";
    }
    const permissions = this.#permissionsOf(user.username);
    if (permissions === undefined) {
      this.#logger.error("cannot find a user for permission check", { "user-name": user.username });
      return "permissionDenied";
    }
    return permissions.allows(key, rangeEnd, writes) ? null : "permissionDenied";
  }

  #permissionsOf(username: string): UserPermissions | undefined {
    const known = this.#permissions.get(username);
    if (known !== undefined) return known;
    const user = this.#users.get(username);
    if (user === undefined) return undefined;
    const permissions = new UserPermissions(user, this.#roles);
    this.#permissions.set(username, permissions);
    return permissions;
  }

  // ---- users

  userAdd({ name, password, hashedPassword, options }: AuthUserAddRequest): AuthProblem | null {
    if (name === "") return "userEmpty";
    if (isTooLong(name)) return "requestTooLarge";
    if (this.#users.has(name)) return "userAlreadyExists";
    const noPassword = options?.noPassword === true;
    const hash = noPassword ? NO_BYTES : this.#selectHash(password, hashedPassword);
    if (hash === undefined) return "noPasswordUser";
    this.#putUser(
      User.create({ name: Buffer.from(name), password: hash, options: UserAddOptions.create({ noPassword }) }),
    );
    this.#count();
    this.#logger.info("added a user", { "user-name": name });
    return null;
  }

  userDelete({ name }: AuthUserDeleteRequest): AuthProblem | null {
    if (this.enabled && name === ROOT) {
      this.#logger.error("cannot delete 'root' user", { "user-name": name });
      return "invalidAuthMgmt";
    }
    const user = this.#users.get(name);
    if (user === undefined) return "userNotFound";
    this.#users.delete(name);
    this.#bucket.deleteUser(name);
    this.#count();
    this.tokens.invalidateUser(name);
    this.#logger.info("deleted a user", { "user-name": name, "user-roles": user.roles });
    return null;
  }

  userChangePassword({ name, password, hashedPassword }: AuthUserChangePasswordRequest): AuthProblem | null {
    const user = this.#users.get(name);
    if (user === undefined) return "userNotFound";
    const hash = user.options?.noPassword === true ? NO_BYTES : this.#selectHash(password, hashedPassword);
    if (hash === undefined) return "noPasswordUser";
    this.#putUser({ ...user, password: hash });
    this.#count();
    this.tokens.invalidateUser(name);
    this.#logger.info("changed a password of a user", { "user-name": name, "user-roles": user.roles });
    return null;
  }

  userGrantRole({ user: name, role }: AuthUserGrantRoleRequest): AuthProblem | null {
    const user = this.#users.get(name);
    if (user === undefined) return "userNotFound";
    if (role !== ROOT && !this.#roles.has(role)) return "roleNotFound";
    if (user.roles.includes(role)) {
      this.#logger.warn("ignored grant role request to a user", {
        "user-name": name,
        "user-roles": user.roles,
        "duplicate-role-name": role,
      });
      return null;
    }
    const roles = [...user.roles, role].sort(compareBytes);
    this.#putUser({ ...user, roles });
    this.#count();
    this.#logger.info("granted a role to a user", { "user-name": name, "user-roles": roles, "added-role-name": role });
    return null;
  }

  userRevokeRole({ name, role }: AuthUserRevokeRoleRequest): AuthProblem | null {
    if (this.enabled && name === ROOT && role === ROOT) {
      this.#logger.error("'root' user cannot revoke 'root' role", { "user-name": name, "role-name": role });
      return "invalidAuthMgmt";
    }
    const user = this.#users.get(name);
    if (user === undefined) return "userNotFound";
    if (!user.roles.includes(role)) return "roleNotGranted";
    const roles = user.roles.filter((one) => one !== role);
    this.#putUser({ ...user, roles });
    this.#count();
    this.#logger.info("revoked a role from a user", {
      "user-name": name,
      "old-user-roles": user.roles,
      "new-user-roles": roles,
      "revoked-role-name": role,
    });
    return null;
  }

  /** The roles of a user. */
  userGet(name: string): readonly string[] | undefined {
    return this.#users.get(name)?.roles;
  }

  /** Ascending. */
  userList(): string[] {
    return [...this.#users.keys()].sort(compareBytes);
  }

  hasRole(username: string, role: string): boolean {
    const user = this.#users.get(username);
    if (user === undefined) {
      this.#logger.warn("'has-role' requested for non-existing user", { "user-name": username, "role-name": role });
    }
    return user?.roles.includes(role) === true;
  }

  // ---- roles

  roleAdd({ name }: AuthRoleAddRequest): AuthProblem | null {
    if (name === "") return "roleEmpty";
    if (isTooLong(name)) return "requestTooLarge";
    if (this.#roles.has(name)) return "roleAlreadyExists";
    this.#putRole(Role.create({ name: Buffer.from(name) }));
    this.#count();
    this.#logger.info("created a role", { "role-name": name });
    return null;
  }

  roleDelete({ role: name }: AuthRoleDeleteRequest): AuthProblem | null {
    if (this.enabled && name === ROOT) {
      this.#logger.error("cannot delete 'root' role", { "role-name": name });
      return "invalidAuthMgmt";
    }
    if (!this.#roles.has(name)) return "roleNotFound";
    this.#roles.delete(name);
    this.#bucket.deleteRole(name);
    for (const user of [...this.#users.values()]) {
      if (user.roles.includes(name)) this.#putUser({ ...user, roles: user.roles.filter((one) => one !== name) });
    }
    this.#count();
    this.#logger.info("deleted a role", { "role-name": name });
    return null;
  }

  roleGrantPermission({ name, perm }: AuthRoleGrantPermissionRequest): AuthProblem | null {
    if (perm === undefined) return "permissionNotGiven";
    if (!isValidRange(perm.key, perm.rangeEnd)) return "invalidAuthMgmt";
    const role = this.#roles.get(name);
    if (role === undefined) return "roleNotFound";
    this.#putRole({ name: role.name, keyPermission: withPermission(role.keyPermission, perm) });
    this.#count();
    this.#logger.info("granted/updated a permission to a user", {
      "user-name": name,
      "permission-name": PERMISSION_NAMES[perm.permType] ?? "",
      key: Buffer.from(perm.key).toString(),
      "range-end": Buffer.from(perm.rangeEnd).toString(),
    });
    return null;
  }

  roleRevokePermission({ role: name, key, rangeEnd }: AuthRoleRevokePermissionRequest): AuthProblem | null {
    const role = this.#roles.get(name);
    if (role === undefined) return "roleNotFound";
    const kept = role.keyPermission.filter((one) => !isSameBytes(one.key, key) || !isSameBytes(one.rangeEnd, rangeEnd));
    if (kept.length === role.keyPermission.length) return "permissionNotGranted";
    this.#putRole({ name: role.name, keyPermission: kept });
    this.#count();
    this.#logger.info("revoked a permission on range", {
      "role-name": name,
      key: Buffer.from(key).toString(),
      "range-end": Buffer.from(rangeEnd).toString(),
    });
    return null;
  }

  /** The permissions of a role, in stored order. */
  roleGet(name: string): readonly Permission[] | undefined {
    const role = this.#roles.get(name);
    return role !== undefined && name === ROOT ? [ROOT_PERMISSION] : role?.keyPermission;
  }

  /** Ascending. */
  roleList(): string[] {
    return [...this.#roles.keys()].sort(compareBytes);
  }

  // ---- inside

  #load(): void {
    const { enabled, revision, users, roles } = this.#bucket.load();
    this.#users = users;
    this.#roles = roles;
    this.#permissions.clear();
    this.revision = revision;
    this.enabled = enabled;
    if (enabled) this.tokens.enable();
  }

  /** Every change makes a new revision, and what is known about permissions is no longer. */
  #count(): void {
    this.revision++;
    this.#bucket.saveRevision(this.revision);
    this.#permissions.clear();
  }

  #putUser(user: User): void {
    this.#users.set(Buffer.from(user.name).toString(), user);
    this.#bucket.putUser(user);
  }

  #putRole(role: Role): void {
    this.#roles.set(Buffer.from(role.name).toString(), role);
    this.#bucket.putRole(role);
  }

  /** Members since etcd 3.5 hash before they propose; what older ones left in the log is hashed here. */
  #selectHash(password: string, hashedPassword: string): Uint8Array | undefined {
    if (password !== "" && hashedPassword === "") return Buffer.from(this.passwords.hashNow(password));
    const text = hashedPassword.replace(/[\r\n]/g, "");
    return BASE64.test(text) ? Buffer.from(text, "base64") : undefined;
  }
}

/** Names are keys of the backend. Members refuse longer ones before they propose them; those of stock etcd do not. */
const isTooLong = (name: string): boolean => Buffer.byteLength(name) > KEY_LENGTH_MAX;

const NO_BYTES = Buffer.alloc(0);
const BASE64 = /^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/;

const PERMISSION_NAMES: Readonly<Record<number, string>> = Object.fromEntries(
  Object.entries(PermissionType).map(([name, value]) => [value, name]),
);

const ROOT_PERMISSION = Permission.create({
  permType: PermissionType.READWRITE,
  rangeEnd: Buffer.from([0]),
});

/**
 * The permissions with one more, ascending by key. One for the same range is replaced when it is the first of its key,
 * which is where etcd looks. So the order of those with one key matters too, and must be that of etcd's sort.
 */
function withPermission(permissions: readonly Permission[], added: Permission): Permission[] {
  const { permType } = added;
  const at = permissions.findIndex((one) => Buffer.compare(one.key, added.key) >= 0);
  const first = permissions[at];
  if (first !== undefined && isSameBytes(first.key, added.key) && isSameBytes(first.rangeEnd, added.rangeEnd)) {
    return permissions.with(at, { ...first, permType });
  }
  // In memory of their own: the request is a part of a larger buffer.
  const copy = { permType, key: Buffer.from(added.key), rangeEnd: Buffer.from(added.rangeEnd) };
  const sorted = [...permissions, copy];
  goSort(sorted, (a, b) => Buffer.compare(a.key, b.key) < 0);
  return sorted;
}

const isSameBytes = (a: Uint8Array, b: Uint8Array): boolean => Buffer.compare(a, b) === 0;

/** As Go orders texts. */
const compareBytes = (a: string, b: string): number => Buffer.compare(Buffer.from(a), Buffer.from(b));
