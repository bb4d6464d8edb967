/** Brings users and roles of a cluster to what the inventory asks for: what differs, and how it is done. Takes no user away. */

import type { RawClient } from "../../client/raw.ts";
import { prefixEnd } from "../../ctl/ranges.ts";
import { type Permission, Permission_Type } from "../../proto/authpb.ts";
import { AuthService } from "../../proto/etcdserverpb.ts";
import type { User } from "../inventory/users.ts";
import type { Cluster } from "./access.ts";

export interface Deed {
  /** One line for people. */
  readonly text: string;
  readonly run: () => Promise<void>;
}

const CALL = { timeoutMs: 10_000 };

/** In the order in which they are to be done. */
export async function usersToDo(cluster: Cluster, users: readonly User[]): Promise<Deed[]> {
  const [{ roles }, { users: names }, { enabled }] = await cluster.answer(
    async (client) =>
      [
        await client.unary(AuthService.RoleList, {}, CALL),
        await client.unary(AuthService.UserList, {}, CALL),
        await client.unary(AuthService.AuthStatus, {}, CALL),
      ] as const,
  );
  const deed = (text: string, what: (client: RawClient) => Promise<unknown>): Deed => ({
    text,
    run: () => cluster.answer(async (client) => void (await what(client))),
  });
  const deeds: Deed[] = [];
  for (const user of users) {
    const { name, password } = user;
    if (!roles.includes(name))
      deeds.push(deed(`add the role ${name}`, (client) => client.unary(AuthService.RoleAdd, { name }, CALL)));
    // Root may do everything.
    const wanted = name === "root" ? [] : permissionsOf(user);
    const there = roles.includes(name)
      ? (await cluster.answer((client) => client.unary(AuthService.RoleGet, { role: name }, CALL))).perm
      : [];
    for (const perm of wanted.filter((each) => !there.some((other) => same(each, other)))) {
      const grant = (client: RawClient) => client.unary(AuthService.RoleGrantPermission, { name, perm }, CALL);
      deeds.push(deed(`let ${name} ${wordOf(perm)} what begins with ${textOf(perm.key)}`, grant));
    }
    for (const { key, rangeEnd } of there.filter(
      (each) => name !== "root" && !wanted.some((other) => sameRange(each, other)),
    )) {
      const revoke = (client: RawClient) =>
        client.unary(AuthService.RoleRevokePermission, { role: name, key, rangeEnd }, CALL);
      deeds.push(deed(`let ${name} no longer use what begins with ${textOf(key)}`, revoke));
    }
    if (!names.includes(name)) {
      const options = { noPassword: password === undefined };
      const add = (client: RawClient) =>
        client.unary(AuthService.UserAdd, { name, password: password ?? "", options }, CALL);
      deeds.push(deed(`add the user ${name}${password === undefined ? ", known by certificate" : ""}`, add));
    }
    const granted = names.includes(name)
      ? (await cluster.answer((client) => client.unary(AuthService.UserGet, { name }, CALL))).roles
      : [];
    if (!granted.includes(name)) {
      const grant = (client: RawClient) => client.unary(AuthService.UserGrantRole, { user: name, role: name }, CALL);
      deeds.push(deed(`give the user ${name} its role`, grant));
    }
  }
  if (!enabled) deeds.push(deed("enable authentication", (client) => client.unary(AuthService.AuthEnable, {}, CALL)));
  return deeds;
}

function permissionsOf({ read, write }: User): Permission[] {
  return [...new Set([...read, ...write])].map((prefix) => {
    const key = Buffer.from(prefix);
    const [canRead, canWrite] = [read.includes(prefix), write.includes(prefix)];
    const permType =
      canRead && canWrite ? Permission_Type.READWRITE : canRead ? Permission_Type.READ : Permission_Type.WRITE;
    return { permType, key, rangeEnd: prefixEnd(key) };
  });
}

const sameRange = (a: Permission, b: Permission): boolean =>
  Buffer.compare(a.key, b.key) === 0 && Buffer.compare(a.rangeEnd, b.rangeEnd) === 0;
const same = (a: Permission, b: Permission): boolean => a.permType === b.permType && sameRange(a, b);

const textOf = (key: Uint8Array): string => JSON.stringify(Buffer.from(key).toString());

function wordOf({ permType }: Permission): string {
  if (permType === Permission_Type.READ) return "read";
  return permType === Permission_Type.WRITE ? "write" : "read and write";
}
