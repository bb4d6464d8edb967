/** Users, roles and permissions. */
import { Permission as PermissionMessage } from "../proto/authpb.ts";
import { AuthService, AuthUserAddRequest } from "../proto/etcdserverpb.ts";
import type { Caller } from "./caller.ts";
import { bytes } from "./codec.ts";
import { type KeyRange, Space } from "./keys.ts";
import type { CallOptions } from "./options.ts";

/** What a role may do with the keys of a permission. */
export type Access = "read" | "write" | "readwrite";

/** A permission of a role: the range as stored, with its namespace. */
export interface Permission {
  readonly access: Access;
  readonly key: Uint8Array;
  /** Empty for one key, a single zero byte for all from `key` on. */
  readonly rangeEnd: Uint8Array;
}

const ACCESS: readonly Access[] = ["read", "write", "readwrite"];
const space = new Space(new Uint8Array(), bytes, bytes);

/**
 * @example
 * await client.auth.addRole("reader");
 * await client.auth.grantPermission("reader", "read", { prefix: "app/" });
 * await client.auth.addUser("ada", "secret");
 * await client.auth.grantRole("ada", "reader");
 */
export class Auth {
  readonly #caller: Caller;

  /** @internal */
  constructor(caller: Caller) {
    this.#caller = caller;
  }

  /** Needs a user `root` with the role `root`. */
  enable(options?: CallOptions): Promise<void> {
    return this.#caller.unary(AuthService.AuthEnable, {}, "write", options, nothing);
  }

  disable(options?: CallOptions): Promise<void> {
    return this.#caller.unary(AuthService.AuthDisable, {}, "write", options, nothing);
  }

  status(options?: CallOptions): Promise<{ readonly enabled: boolean; readonly revision: number }> {
    return this.#caller.unary(AuthService.AuthStatus, {}, "read", options, ({ enabled, authRevision }) => ({
      enabled,
      revision: authRevision,
    }));
  }

  // ---- users

  /** Without a password the user can only come with a certificate. */
  addUser(name: string, password?: string, options?: CallOptions): Promise<void> {
    const request = AuthUserAddRequest.create({
      name,
      password: password ?? "",
      options: { noPassword: password === undefined },
    });
    return this.#caller.unary(AuthService.UserAdd, request, "write", options, nothing);
  }

  deleteUser(name: string, options?: CallOptions): Promise<void> {
    return this.#caller.unary(AuthService.UserDelete, { name }, "write", options, nothing);
  }

  changePassword(name: string, password: string, options?: CallOptions): Promise<void> {
    const request = { name, password, hashedPassword: "" };
    return this.#caller.unary(AuthService.UserChangePassword, request, "write", options, nothing);
  }

  users(options?: CallOptions): Promise<readonly string[]> {
    return this.#caller.unary(AuthService.UserList, {}, "read", options, ({ users }) => users);
  }

  /** The roles of a user. */
  rolesOf(name: string, options?: CallOptions): Promise<readonly string[]> {
    return this.#caller.unary(AuthService.UserGet, { name }, "read", options, ({ roles }) => roles);
  }

  grantRole(user: string, role: string, options?: CallOptions): Promise<void> {
    return this.#caller.unary(AuthService.UserGrantRole, { user, role }, "write", options, nothing);
  }

  revokeRole(user: string, role: string, options?: CallOptions): Promise<void> {
    return this.#caller.unary(AuthService.UserRevokeRole, { name: user, role }, "write", options, nothing);
  }

  // ---- roles

  addRole(name: string, options?: CallOptions): Promise<void> {
    return this.#caller.unary(AuthService.RoleAdd, { name }, "write", options, nothing);
  }

  deleteRole(role: string, options?: CallOptions): Promise<void> {
    return this.#caller.unary(AuthService.RoleDelete, { role }, "write", options, nothing);
  }

  roles(options?: CallOptions): Promise<readonly string[]> {
    return this.#caller.unary(AuthService.RoleList, {}, "read", options, ({ roles }) => roles);
  }

  /** What a role may do. */
  permissionsOf(role: string, options?: CallOptions): Promise<readonly Permission[]> {
    return this.#caller.unary(AuthService.RoleGet, { role }, "read", options, ({ perm }) =>
      perm.map(({ permType, key, rangeEnd }) => ({
        access: ACCESS[permType] ?? "readwrite",
        key: new Uint8Array(key),
        rangeEnd: new Uint8Array(rangeEnd),
      })),
    );
  }

  /** Keys are as stored, whatever namespace is in use. */
  grantPermission(role: string, access: Access, range: KeyRange, options?: CallOptions): Promise<void> {
    const permType = access === "read" ? 0 : access === "write" ? 1 : 2;
    const perm = PermissionMessage.create({ permType, ...space.span(range) });
    return this.#caller.unary(AuthService.RoleGrantPermission, { name: role, perm }, "write", options, nothing);
  }

  revokePermission(role: string, range: KeyRange, options?: CallOptions): Promise<void> {
    const request = { role, ...space.span(range) };
    return this.#caller.unary(AuthService.RoleRevokePermission, request, "write", options, nothing);
  }
}

function nothing(): void {}
