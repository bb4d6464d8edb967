/** `etcdctl user` */
import { decodeLossless } from "../../base/lossless-text.ts";
import { AuthService } from "../../proto/etcdserverpb.ts";
import type { Ctl, CtlCommand } from "../ctl.ts";
import { badArgs } from "../exit.ts";
import { readLine } from "../io.ts";

const add: CtlCommand = {
  name: "add",
  usage: "<user or user:password> [options]",
  short: "Creates a user",
  flags: [
    {
      name: "interactive",
      kind: "bool",
      value: true,
      usage: "ask for the password; otherwise it is the first word of the first line of standard input",
    },
    { name: "new-user-password", kind: "string", value: "", usage: "password of the new user" },
    { name: "no-password", kind: "bool", value: false, usage: "create a user that only certificates can be" },
  ],
  async run(ctl) {
    const [argument, ...more] = ctl.args;
    if (argument === undefined || more.length > 0) throw badArgs("user add command requires user name as its argument");
    const noPassword = ctl.flags.bool("no-password");
    const { user, password } = noPassword ? { user: argument, password: "" } : await newUser(ctl, argument);
    const request = { name: user, password, options: { noPassword } };
    await ctl.show("userAdd", { user, response: await ctl.call(AuthService.UserAdd, request) });
  },
};

async function newUser(ctl: Ctl, argument: string): Promise<{ readonly user: string; readonly password: string }> {
  const given = ctl.flags.string("new-user-password");
  if (given !== "") return { user: argument, password: given };
  const colon = argument.indexOf(":");
  if (colon < 0) return { user: argument, password: await newPassword(ctl, argument) };
  if (colon === 0) throw badArgs("empty user name is not allowed");
  return { user: argument.slice(0, colon), password: argument.slice(colon + 1) };
}

async function newPassword(ctl: Ctl, user: string): Promise<string> {
  if (!ctl.flags.bool("interactive")) return /\S+/.exec(decodeLossless(await readLine(ctl.io.stdin)))?.[0] ?? "";
  const password = await ctl.io.askPassword(`Password of ${user}: `);
  if (password === "") throw badArgs("empty password");
  const again = await ctl.io.askPassword(`Type password of ${user} again for confirmation: `);
  if (again !== password) throw badArgs("given passwords are different");
  return password;
}

const remove: CtlCommand = {
  name: "delete",
  usage: "<user>",
  short: "Deletes a user",
  async run(ctl) {
    const user = userArgument(ctl, "user delete command requires user name as its argument");
    await ctl.show("userDelete", { user, response: await ctl.call(AuthService.UserDelete, { name: user }) });
  },
};

const get: CtlCommand = {
  name: "get",
  usage: "<user> [options]",
  short: "Lists the roles of a user",
  flags: [{ name: "detail", kind: "bool", value: false, usage: "list the permissions of the roles too" }],
  async run(ctl) {
    const user = userArgument(ctl, "user get command requires user name as its argument");
    const response = await ctl.call(AuthService.UserGet, { name: user });
    if (!ctl.flags.bool("detail")) return ctl.show("userGet", { user, response });
    ctl.io.out(`User: ${user}\n`);
    for (const role of response.roles) {
      ctl.io.out("\n");
      await ctl.show("roleGet", { role, response: await ctl.call(AuthService.RoleGet, { role }) });
    }
  },
};

const list: CtlCommand = {
  name: "list",
  short: "Lists the users",
  async run(ctl) {
    if (ctl.args.length > 0) throw badArgs("user list command requires no arguments");
    await ctl.show("userList", await ctl.call(AuthService.UserList, {}));
  },
};

const passwd: CtlCommand = {
  name: "passwd",
  usage: "<user> [options]",
  short: "Changes the password of a user",
  flags: [
    {
      name: "interactive",
      kind: "bool",
      value: true,
      usage: "ask for the password; otherwise it is the first word of the first line of standard input",
    },
  ],
  async run(ctl) {
    const user = userArgument(ctl, "user passwd command requires user name as its argument");
    const password = await newPassword(ctl, user);
    await ctl.show("userChangePassword", await ctl.call(AuthService.UserChangePassword, { name: user, password }));
  },
};

const grantRole: CtlCommand = {
  name: "grant-role",
  usage: "<user> <role>",
  short: "Gives a role to a user",
  async run(ctl) {
    const [user, role, ...more] = ctl.args;
    if (user === undefined || role === undefined || more.length > 0) {
      throw badArgs("user grant command requires user name and role name as its argument");
    }
    await ctl.show("userGrantRole", {
      user,
      role,
      response: await ctl.call(AuthService.UserGrantRole, { user, role }),
    });
  },
};

const revokeRole: CtlCommand = {
  name: "revoke-role",
  usage: "<user> <role>",
  short: "Takes a role from a user",
  async run(ctl) {
    const [user, role, ...more] = ctl.args;
    if (user === undefined || role === undefined || more.length > 0) {
      throw badArgs("user revoke-role requires user name and role name as its argument");
    }
    const response = await ctl.call(AuthService.UserRevokeRole, { name: user, role });
    await ctl.show("userRevokeRole", { user, role, response });
  },
};

export const user: CtlCommand = {
  name: "user",
  short: "Manages users and their roles",
  commands: [add, remove, get, list, passwd, grantRole, revokeRole],
};

function userArgument(ctl: Ctl, complaint: string): string {
  const [user, ...more] = ctl.args;
  if (user === undefined || more.length > 0) throw badArgs(complaint);
  return user;
}
