/** The users and roles of a new cluster. */
import type { Client } from "../client/client.ts";
import type { EtcdSettings } from "./settings.ts";

/** Makes them, those that there are not yet, and has users checked from then on. */
export async function makeUsers({ auth }: Client, { users = {}, roles = {} }: EtcdSettings): Promise<void> {
  if ((await auth.status()).enabled) return;
  for (const [role, permissions] of Object.entries(roles)) {
    await auth.addRole(role);
    for (const { access, prefix } of permissions) {
      await auth.grantPermission(role, access, prefix === "" ? { all: true } : { prefix });
    }
  }
  if (roles["root"] === undefined) await auth.addRole("root");
  for (const [name, user] of Object.entries(users)) {
    const { password, roles: granted = [] } = typeof user === "string" ? { password: user } : user;
    await auth.addUser(name, password);
    for (const role of name === "root" ? new Set([...granted, "root"]) : granted) await auth.grantRole(name, role);
  }
  await auth.enable();
}
