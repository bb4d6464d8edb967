/** `etcdctl move-leader` */
import { ParseError, parseUint64 } from "../../base/number-text.ts";
import { MaintenanceService } from "../../proto/etcdserverpb.ts";
import type { CtlCommand } from "../ctl.ts";
import { badArgs } from "../exit.ts";

export const moveLeader: CtlCommand = {
  name: "move-leader",
  usage: "<member>",
  short: "Hands leadership to another member",
  async run(ctl) {
    const [text, ...more] = ctl.args;
    if (text === undefined || more.length > 0) throw badArgs("move-leader command needs 1 argument");
    let targetId: bigint;
    try {
      targetId = parseUint64(text, 16);
    } catch (error) {
      if (error instanceof ParseError) throw badArgs(error.message);
      throw error;
    }
    const cluster = await ctl.cluster();
    const { timeoutMs } = ctl;
    // Only the leader can transfer leadership, so it must be among the endpoints.
    for (const endpoint of cluster.endpoints) {
      const member = cluster.only(endpoint);
      try {
        const { header, leader } = await member.call(MaintenanceService.Status, {}, { timeoutMs });
        if (header?.memberId !== leader) continue;
        const response = await member.call(MaintenanceService.MoveLeader, { targetId }, { timeoutMs });
        await ctl.show("moveLeader", { from: leader, to: targetId, response });
        return;
      } finally {
        await member.close();
      }
    }
    throw badArgs(`no leader endpoint given at [${cluster.endpoints.join(" ")}]`);
  },
};
