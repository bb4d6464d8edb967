/** `etcdctl downgrade` */
import { DowngradeRequest_DowngradeAction as Action, MaintenanceService } from "../../proto/etcdserverpb.ts";
import type { Ctl, CtlCommand } from "../ctl.ts";
import { badArgs } from "../exit.ts";

const validate: CtlCommand = {
  name: "validate",
  usage: "<version>",
  short: "Tells whether the cluster can go back to a version",
  async run(ctl) {
    const version = versionArgument(ctl);
    const response = await ctl.call(MaintenanceService.Downgrade, { action: Action.VALIDATE, version });
    await ctl.show("downgradeValidate", response);
  },
};

const enable: CtlCommand = {
  name: "enable",
  usage: "<version>",
  short: "Starts to take the cluster back to a version",
  async run(ctl) {
    const version = versionArgument(ctl);
    const response = await ctl.call(MaintenanceService.Downgrade, { action: Action.ENABLE, version });
    await ctl.show("downgradeEnable", response);
  },
};

const cancel: CtlCommand = {
  name: "cancel",
  short: "Ends the downgrade in progress",
  async run(ctl) {
    await ctl.show("downgradeCancel", await ctl.call(MaintenanceService.Downgrade, { action: Action.CANCEL }));
  },
};

export const downgrade: CtlCommand = {
  name: "downgrade",
  short: "Takes the cluster back to an older version",
  commands: [validate, enable, cancel],
};

function versionArgument(ctl: Ctl): string {
  const [version, ...more] = ctl.args;
  if (version === undefined) throw badArgs("TARGET_VERSION not provided");
  if (more.length > 0) throw badArgs("too many arguments");
  if (version === "") throw badArgs("target version not provided");
  return version;
}
