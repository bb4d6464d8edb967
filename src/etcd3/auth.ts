/** Roles and users. */
import type { AuthClient } from "./clients.ts";
import { Permission } from "./enums.ts";
import type { CallOptions } from "./options.ts";
import { Range } from "./range.ts";
import { emptyKey, toBuffer } from "./util.ts";

type PermissionName = keyof typeof Permission;

export type IPermissionRequest =
  | { readonly permission: PermissionName; readonly range: Range }
  | { readonly permission: PermissionName; readonly key: Buffer | string };

export interface IPermissionResult {
  readonly permission: PermissionName;
  readonly range: Range;
}

const nameOf = (named: string | { readonly name: string }): string => (typeof named === "string" ? named : named.name);

export class Role {
  readonly name: string;
  readonly #client: AuthClient;

  constructor(client: AuthClient, name: string) {
    this.#client = client;
    this.name = name;
  }

  async create(options?: CallOptions): Promise<this> {
    await this.#client.roleAdd({ name: this.name }, options);
    return this;
  }

  async delete(options?: CallOptions): Promise<this> {
    await this.#client.roleDelete({ role: this.name }, options);
    return this;
  }

  async revoke(request: IPermissionRequest | IPermissionRequest[], options?: CallOptions): Promise<this> {
    for (const each of Array.isArray(request) ? request : [request]) {
      const { start, end } = rangeOf(each);
      await this.#client.roleRevokePermission({ role: this.name, key: start, range_end: end }, options);
    }
    return this;
  }

  async grant(request: IPermissionRequest | IPermissionRequest[], options?: CallOptions): Promise<this> {
    for (const each of Array.isArray(request) ? request : [request]) {
      const { start, end } = rangeOf(each);
      const perm = { permType: Permission[each.permission], key: start, range_end: end };
      await this.#client.roleGrantPermission({ name: this.name, perm }, options);
    }
    return this;
  }

  async permissions(options?: CallOptions): Promise<IPermissionResult[]> {
    const { perm } = await this.#client.roleGet({ role: this.name }, options);
    return perm.map(({ permType, key = emptyKey, range_end: end = emptyKey }) => ({
      permission: permissionName(permType),
      range: new Range(key, end),
    }));
  }

  async addUser(user: string | User, options?: CallOptions): Promise<this> {
    await this.#client.userGrantRole({ user: nameOf(user), role: this.name }, options);
    return this;
  }

  async removeUser(user: string | User, options?: CallOptions): Promise<this> {
    await this.#client.userRevokeRole({ name: nameOf(user), role: this.name }, options);
    return this;
  }
}

export class User {
  readonly name: string;
  readonly #client: AuthClient;

  constructor(client: AuthClient, name: string) {
    this.#client = client;
    this.name = name;
  }

  async create(password: string, options?: CallOptions): Promise<this> {
    await this.#client.userAdd({ name: this.name, password }, options);
    return this;
  }

  async setPassword(password: string, options?: CallOptions): Promise<this> {
    await this.#client.userChangePassword({ name: this.name, password }, options);
    return this;
  }

  async delete(options?: CallOptions): Promise<this> {
    await this.#client.userDelete({ name: this.name }, options);
    return this;
  }

  async roles(options?: CallOptions): Promise<Role[]> {
    const { roles } = await this.#client.userGet({ name: this.name }, options);
    return roles.map((name) => new Role(this.#client, name));
  }

  async addRole(role: string | Role, options?: CallOptions): Promise<this> {
    await this.#client.userGrantRole({ user: this.name, role: nameOf(role) }, options);
    return this;
  }

  async removeRole(role: string | Role, options?: CallOptions): Promise<this> {
    await this.#client.userRevokeRole({ name: this.name, role: nameOf(role) }, options);
    return this;
  }
}

const rangeOf = (request: IPermissionRequest): Range =>
  "range" in request ? request.range : new Range(toBuffer(request.key));

/** The server's answer has the name of the protocol, `READWRITE`. */
function permissionName(type: string | number | undefined): PermissionName {
  const names = ["Read", "Write", "Readwrite"] as const;
  return names.find((name) => name.toLowerCase() === `${type}`.toLowerCase()) ?? names[Number(type ?? 0)] ?? "Read";
}
