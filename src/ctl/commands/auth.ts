/** `etcdctl auth` */
import { AuthService } from "../../proto/etcdserverpb.ts";
import type { CtlCommand } from "../ctl.ts";
import { badArgs, isRpcError } from "../exit.ts";

const NO_ROOT_ROLE = "etcdserver: root user does not have root role";

const enable: CtlCommand = {
  name: "enable",
  short: "Turns authentication on",
  async run(ctl) {
    if (ctl.args.length > 0) throw badArgs("auth enable command does not accept any arguments");
    try {
      await ctl.call(AuthService.AuthEnable, {});
    } catch (error) {
      if (!isRpcError(error) || error.details !== NO_ROOT_ROLE) throw error;
      // A user named root is meant to have the role root.
      await ctl.call(AuthService.RoleAdd, { name: "root" });
      await ctl.call(AuthService.UserGrantRole, { user: "root", role: "root" });
      await ctl.call(AuthService.AuthEnable, {});
    }
    ctl.io.out("Authentication Enabled\n");
  },
};

const disable: CtlCommand = {
  name: "disable",
  short: "Turns authentication off",
  async run(ctl) {
    if (ctl.args.length > 0) throw badArgs("auth disable command does not accept any arguments");
    await ctl.call(AuthService.AuthDisable, {});
    ctl.io.out("Authentication Disabled\n");
  },
};

const status: CtlCommand = {
  name: "status",
  short: "Tells whether authentication is on",
  async run(ctl) {
    if (ctl.args.length > 0) throw badArgs("auth status command does not accept any arguments");
    await ctl.show("authStatus", await ctl.call(AuthService.AuthStatus, {}));
  },
};

export const auth: CtlCommand = {
  name: "auth",
  short: "Turns authentication on and off",
  commands: [enable, disable, status],
};
