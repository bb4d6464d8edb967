/** `kvorum cluster kubeadm`: a cluster as static pods of the kubelet, for a control plane that kubeadm makes. */
import { resolve } from "node:path";
import { Cluster } from "../cluster/access.ts";
import { type DeployCommand, DeployError, EXIT } from "../common/context.ts";
import { INVENTORY_FILE } from "../common/flags.ts";
import { lockBeside } from "../common/lock.ts";
import { applyKubeadm, planKubeadm } from "../hosts/kubeadm.ts";
import { readInventory } from "../inventory/inventory.ts";
import { makeSet } from "../pki/set.ts";
import { kubeadmCertificates } from "../render/kubeadm.ts";
import { rowsOf, statusText } from "./status.ts";

export const kubeadmCommand: DeployCommand = {
  name: "kubeadm",
  short: "Runs the members as static pods of the kubelet, laid out as kubeadm has it",
  long: `Makes each host what kubeadm's guide for an external etcd makes it by hand: a kubelet that runs etcd and nothing else, the
configuration for kubeadm, certificates below /etc/kubernetes/pki, and the static pod. Certificates that end within 30 days are
made again, so run it every week. Where nothing differs nothing is done. kvorum cluster render --target kubeadm writes the same
files here.`,
  flags: [
    INVENTORY_FILE,
    {
      name: "dry-run",
      kind: "bool",
      value: false,
      usage: "say what would be written, and change nothing on the hosts",
    },
  ],
  async run(context, { flags, args }) {
    if (args.length > 0) throw new DeployError(`cluster kubeadm takes flags only, not ${args.join(" ")}`);
    const path = resolve(context.cwd, flags.string("file"));
    const lock = lockBeside(path);
    try {
      const inventory = readInventory(path);
      for (const warning of inventory.warnings) context.err(`warning: ${warning}\n`);
      const now = { nowMs: context.clock.wallMs(), random: context.random };
      for (const { action, file, why } of await makeSet(kubeadmCertificates(inventory), now))
        if (action !== "kept")
          context.out(`${action} certificate ${file}${why === undefined ? "" : ` (it was: ${why})`}\n`);
      const plans = await planKubeadm(context, inventory);
      if (plans.every(({ differing }) => differing.length === 0)) context.out("nothing differs\n");
      else if (flags.bool("dry-run")) {
        for (const { member, differing } of plans)
          for (const file of differing) context.out(`${member.name}: write ${file.path}\n`);
        throw new DeployError("", EXIT.warnings);
      }
      if (flags.bool("dry-run")) return;
      await applyKubeadm(context, inventory, plans);
      const looks = await new Cluster(context, inventory).looks();
      context.out(statusText(rowsOf(inventory, looks, context.clock.wallMs()), undefined));
      if (looks.some(({ tookMs }) => tookMs === undefined)) throw new DeployError("", EXIT.problems);
    } finally {
      lock.release();
    }
  },
};
