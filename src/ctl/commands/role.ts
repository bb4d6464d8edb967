/** `etcdctl role` */

import type { Flag } from "../../base/flags.ts";
import { encodeLossless } from "../../base/lossless-text.ts";
import { Permission_Type } from "../../proto/authpb.ts";
import { AuthService } from "../../proto/etcdserverpb.ts";
import type { Ctl, CtlCommand } from "../ctl.ts";
import { badArgs } from "../exit.ts";
import { prefixEnd } from "../ranges.ts";

const RANGE_FLAGS: readonly Flag[] = [
  { name: "prefix", kind: "bool", value: false, usage: "mean all keys that start with the key" },
  { name: "from-key", kind: "bool", value: false, usage: "mean all keys from the key on, in byte order" },
];

const add: CtlCommand = {
  name: "add",
  usage: "<role>",
  short: "Creates a role",
  async run(ctl) {
    const role = roleArgument(ctl, "add");
    await ctl.show("roleAdd", { role, response: await ctl.call(AuthService.RoleAdd, { name: role }) });
  },
};

const remove: CtlCommand = {
  name: "delete",
  usage: "<role>",
  short: "Deletes a role",
  async run(ctl) {
    const role = roleArgument(ctl, "delete");
    await ctl.show("roleDelete", { role, response: await ctl.call(AuthService.RoleDelete, { role }) });
  },
};

const get: CtlCommand = {
  name: "get",
  usage: "<role>",
  short: "Lists the permissions of a role",
  async run(ctl) {
    const role = roleArgument(ctl, "get");
    await ctl.show("roleGet", { role, response: await ctl.call(AuthService.RoleGet, { role }) });
  },
};

const list: CtlCommand = {
  name: "list",
  short: "Lists the roles",
  async run(ctl) {
    if (ctl.args.length > 0) throw badArgs("role list command requires no arguments");
    await ctl.show("roleList", await ctl.call(AuthService.RoleList, {}));
  },
};

const PERMISSIONS: Readonly<Record<string, Permission_Type>> = {
  READ: Permission_Type.READ,
  WRITE: Permission_Type.WRITE,
  READWRITE: Permission_Type.READWRITE,
};

const grant: CtlCommand = {
  name: "grant-permission",
  usage: "[options] <role> <read|write|readwrite> <key> [range_end]",
  short: "Allows a role to read or write keys",
  flags: RANGE_FLAGS,
  async run(ctl) {
    const [role, type, ...range] = ctl.args;
    if (role === undefined || type === undefined || range.length === 0) {
      throw badArgs("role grant command requires role name, permission type, and key [endkey] as its argument");
    }
    const permType = PERMISSIONS[type.toUpperCase()];
    if (permType === undefined) throw badArgs(`invalid permission type: ${type}`);
    const { key, end } = permissionRange(ctl, range);
    const perm = { permType, key: encodeLossless(key), rangeEnd: end };
    const response = await ctl.call(AuthService.RoleGrantPermission, { name: role, perm });
    await ctl.show("roleGrantPermission", { role, response });
  },
};

const revoke: CtlCommand = {
  name: "revoke-permission",
  usage: "[options] <role> <key> [range_end]",
  short: "Takes a permission back",
  flags: RANGE_FLAGS,
  async run(ctl) {
    const [role, ...range] = ctl.args;
    if (role === undefined || range.length === 0) {
      throw badArgs("role revoke-permission command requires role name and key [endkey] as its argument");
    }
    const { key, end } = permissionRange(ctl, range);
    const request = { role, key: encodeLossless(key), rangeEnd: end };
    const response = await ctl.call(AuthService.RoleRevokePermission, request);
    await ctl.show("roleRevokePermission", { role, key: range[0]!, end: end.toString("latin1"), response });
  },
};

export const role: CtlCommand = {
  name: "role",
  short: "Manages roles and their permissions",
  commands: [add, remove, get, list, grant, revoke],
};

function roleArgument(ctl: Ctl, command: string): string {
  const [role, ...more] = ctl.args;
  if (role === undefined || more.length > 0) {
    throw badArgs(`role ${command} command requires role name as its argument`);
  }
  return role;
}

/** A key and range end, or a key with `--prefix` or `--from-key`. */
function permissionRange(ctl: Ctl, [key = "", end]: readonly string[]): { readonly key: string; readonly end: Buffer } {
  const prefix = ctl.flags.bool("prefix");
  const fromKey = ctl.flags.bool("from-key");
  const everything = Buffer.of(0);
  const nothing = Buffer.alloc(0);
  if (prefix && fromKey && (key === "" || end === undefined)) {
    throw badArgs("--from-key and --prefix flags are mutually exclusive");
  }
  if (key === "") return { key: "\0", end: prefix || fromKey ? everything : nothing };
  if (end !== undefined) {
    if (prefix) throw badArgs("unexpected endkey argument with --prefix flag");
    if (fromKey) throw badArgs("unexpected endkey argument with --from-key flag");
    return { key, end: encodeLossless(end) };
  }
  if (prefix) return { key, end: prefixEnd(encodeLossless(key)) };
  return { key, end: fromKey ? everything : nothing };
}
