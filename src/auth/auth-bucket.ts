import { InvariantError } from "../base/fatal.ts";
import type { Backend } from "../mvcc/backend/backend.ts";
import { Role, User } from "../proto/authpb.ts";

/**
 * Users, roles and the enabled flag in etcd's layout: in the buckets `authUsers` and `authRoles` by name, and in the
 * bucket `auth` the keys `authEnabled` (one byte) and `authRevision` (eight, big-endian). Source: etcd
 * `server/storage/schema/auth*.go`.
 */
export interface StoredAuth {
  readonly enabled: boolean;
  /** 0 in a database that was never opened with authentication. */
  readonly revision: number;
  readonly users: Map<string, User>;
  readonly roles: Map<string, Role>;
}

export class AuthBucket {
  readonly #backend: Backend;

  constructor(backend: Backend) {
    this.#backend = backend;
  }

  load(): StoredAuth {
    const enabled = this.#backend.get("auth", ENABLED);
    const revision = this.#backend.get("auth", REVISION);
    if (revision !== undefined && revision.length !== 8) {
      throw new InvariantError(`the stored revision of users and roles has ${revision.length} bytes, not 8`);
    }
    const users = new Map<string, User>();
    this.#backend.forEach("authUsers", (key, value) => void users.set(textOf(key), decode(User, "user", key, value)));
    const roles = new Map<string, Role>();
    this.#backend.forEach("authRoles", (key, value) => void roles.set(textOf(key), decode(Role, "role", key, value)));
    return {
      enabled: enabled?.length === 1 && enabled[0] === 1,
      revision: revision === undefined ? 0 : Number(Buffer.from(revision).readBigUInt64BE(0)),
      users,
      roles,
    };
  }

  saveEnabled(enabled: boolean): void {
    this.#backend.put("auth", ENABLED, Buffer.from([enabled ? 1 : 0]));
  }

  saveRevision(revision: number): void {
    const bytes = Buffer.alloc(8);
    bytes.writeBigUInt64BE(BigInt(revision));
    this.#backend.put("auth", REVISION, bytes);
  }

  putUser(user: User): void {
    this.#backend.put("authUsers", user.name, User.encode(user));
  }

  deleteUser(name: string): void {
    this.#backend.delete("authUsers", Buffer.from(name));
  }

  putRole(role: Role): void {
    this.#backend.put("authRoles", role.name, Role.encode(role));
  }

  deleteRole(name: string): void {
    this.#backend.delete("authRoles", Buffer.from(name));
  }
}

const ENABLED = Buffer.from("authEnabled");
const REVISION = Buffer.from("authRevision");

const textOf = (bytes: Uint8Array): string => Buffer.from(bytes).toString();

function decode<T>(codec: { decode(bytes: Uint8Array): T }, kind: string, key: Uint8Array, value: Uint8Array): T {
  try {
    return codec.decode(value);
  } catch (error) {
    throw new InvariantError(`the stored ${kind} ${textOf(key)} cannot be read`, { cause: error });
  }
}
