import { type ByteString, toByteString } from "../mvcc/model/types.ts";
import { type Permission, Permission_Type as PermissionType, type Role, type User } from "../proto/authpb.ts";
import { type KeyRange, KeyRanges } from "./key-ranges.ts";

/** The user that must exist to enable authentication, and the role that may do everything. */
export const ROOT = "root";

/** What one user may read and write: the permissions of all roles together. Source: etcd `server/auth/range_perm_cache.go`. */
export class UserPermissions {
  readonly isRoot: boolean;
  readonly #read: KeyRanges;
  readonly #write: KeyRanges;

  constructor(user: User, roles: ReadonlyMap<string, Role>) {
    this.isRoot = hasRootRole(user);
    const read: KeyRange[] = [];
    const write: KeyRange[] = [];
    for (const name of user.roles) {
      for (const permission of roles.get(name)?.keyPermission ?? []) {
        // etcd takes an empty key for the greatest of all, so the range is empty.
        if (permission.key.length === 0) continue;
        const range = rangeOf(permission);
        const { permType } = permission;
        if (permType === PermissionType.READ || permType === PermissionType.READWRITE) read.push(range);
        if (permType === PermissionType.WRITE || permType === PermissionType.READWRITE) write.push(range);
      }
    }
    this.#read = new KeyRanges(read);
    this.#write = new KeyRanges(write);
  }

  /** Keys and ends as on the wire: an empty end means the key alone, one zero byte every key from it on. */
  allows(key: ByteString, rangeEnd: ByteString, writes: boolean): boolean {
    if (this.isRoot) return true;
    const ranges = writes ? this.#write : this.#read;
    if (rangeEnd === "") return ranges.hasKey(key);
    return ranges.hasRange(key, rangeEnd === FROM_KEY ? "" : rangeEnd);
  }
}

export function hasRootRole(user: User): boolean {
  return user.roles.includes(ROOT);
}

/** A permission covers a key, a range that is not empty, or everything from a key on. */
export function isValidRange(key: Uint8Array, rangeEnd: Uint8Array): boolean {
  if (key.length === 0) return false;
  return rangeEnd.length === 0 || Buffer.compare(key, rangeEnd) < 0 || isFromKey(rangeEnd);
}

const FROM_KEY: ByteString = "\0";

const isFromKey = (rangeEnd: Uint8Array): boolean => rangeEnd.length === 1 && rangeEnd[0] === 0;

function rangeOf({ key, rangeEnd }: Permission): KeyRange {
  const start = toByteString(key);
  if (rangeEnd.length === 0) return { start, end: `${start}\0` };
  return { start, end: isFromKey(rangeEnd) ? "" : toByteString(rangeEnd) };
}
