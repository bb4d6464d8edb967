/** `etcdctl defrag` */
import { goDuration } from "../../base/duration.ts";
import { MaintenanceService } from "../../proto/etcdserverpb.ts";
import type { CtlCommand } from "../ctl.ts";
import { describeError, EXIT, ExitError } from "../exit.ts";
import { CLUSTER_FLAG, endpointsOf } from "./endpoint.ts";

export const defrag: CtlCommand = {
  name: "defrag",
  short: "Gives the free space of databases back to the disk",
  sharedFlags: [CLUSTER_FLAG],
  async run(ctl) {
    const cluster = await ctl.cluster();
    const { clock } = ctl.io;
    let failures = 0;
    for (const endpoint of await endpointsOf(ctl, cluster)) {
      const member = cluster.only(endpoint);
      const startMs = clock.nowMs();
      try {
        await member.call(MaintenanceService.Defragment, {}, { timeoutMs: ctl.timeoutMs });
        const took = goDuration(clock.nowMs() - startMs);
        ctl.io.out(`Finished defragmenting etcd member[${endpoint}]. took ${took}\n`);
      } catch (error) {
        const took = goDuration(clock.nowMs() - startMs);
        ctl.io.err(`Failed to defragment etcd member[${endpoint}]. took ${took}. (${describeError(error)})\n`);
        failures++;
      }
      await member.close();
    }
    if (failures > 0) throw new ExitError(EXIT.error, "");
  },
};
