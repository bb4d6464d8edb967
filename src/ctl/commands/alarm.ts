/** `etcdctl alarm` */
import {
  AlarmRequest_AlarmAction,
  type AlarmResponse,
  AlarmType,
  MaintenanceService,
} from "../../proto/etcdserverpb.ts";
import type { CtlCommand } from "../ctl.ts";
import { badArgs } from "../exit.ts";

const list: CtlCommand = {
  name: "list",
  short: "Lists the alarms",
  async run(ctl) {
    if (ctl.args.length > 0) throw badArgs("alarm list command accepts no arguments");
    await ctl.show("alarm", await ctl.call(MaintenanceService.Alarm, { action: AlarmRequest_AlarmAction.GET }));
  },
};

const disarm: CtlCommand = {
  name: "disarm",
  short: "Takes every alarm back",
  async run(ctl) {
    if (ctl.args.length > 0) throw badArgs("alarm disarm command accepts no arguments");
    const { alarms, header } = await ctl.call(MaintenanceService.Alarm, { action: AlarmRequest_AlarmAction.GET });
    const all: AlarmResponse = { header, alarms: [] };
    for (const { memberId, alarm } of alarms) {
      if (alarm === AlarmType.NONE) continue;
      const request = { action: AlarmRequest_AlarmAction.DEACTIVATE, memberId, alarm };
      const response = await ctl.call(MaintenanceService.Alarm, request);
      all.header = response.header;
      all.alarms.push(...response.alarms);
    }
    await ctl.show("alarm", all);
  },
};

export const alarm: CtlCommand = { name: "alarm", short: "Lists and disarms alarms", commands: [list, disarm] };
