/**
 * Brings a cluster of static pods to its hosts: what differs is written, certificates at once, for members read them again by
 * themselves, and manifests, with which the kubelet restarts the pod, one host after the other while all others are healthy.
 */
import { createHash } from "node:crypto";
import { Cluster } from "../cluster/access.ts";
import type { Context } from "../common/context.ts";
import type { Inventory, Member } from "../inventory/inventory.ts";
import type { HostFile } from "../render/host.ts";
import { KUBEADM_MANIFEST, KUBELET_FILES, kubeadmFiles } from "../render/kubeadm.ts";
import { refuseUnlessHealthy, untilHealthy } from "./service.ts";
import { runOn, word } from "./shell.ts";

export interface KubeadmPlan {
  readonly member: Member;
  readonly differing: readonly HostFile[];
  /** A manifest is there: its pod runs, or is to. */
  readonly hasManifest: boolean;
}

/** Looks only. Throws DeployError when a host cannot be reached. */
export function planKubeadm(context: Context, inventory: Inventory): Promise<KubeadmPlan[]> {
  return Promise.all(
    inventory.members.map(async (member) => {
      const files = kubeadmFiles(inventory, member);
      const looks = files.map(
        ({ path }) =>
          `if [ -f ${word(path)} ]; then sha256sum < ${word(path)} | cut -d' ' -f1; stat -c %a:%U ${word(path)}; else echo -; echo -; fi\n`,
      );
      const told = (await runOn(context, member.ssh, looks.join(""))).trim().split("\n");
      const differing = files.filter(({ content, mode }, i) => {
        const sum = createHash("sha256").update(content).digest("hex");
        return told[2 * i] !== sum || told[2 * i + 1] !== `${mode.toString(8)}:root`;
      });
      return { member, differing, hasManifest: told[2 * files.length - 2] !== "-" };
    }),
  );
}

/** Throws DeployError; what was written stays, and a repetition has the rest. */
export async function applyKubeadm(
  context: Context,
  inventory: Inventory,
  plans: readonly KubeadmPlan[],
): Promise<void> {
  const cluster = new Cluster(context, inventory);
  const isManifest = ({ path }: HostFile) => path === KUBEADM_MANIFEST;
  await Promise.all(
    plans.map(async ({ member, differing }) => {
      const now = differing.filter((file) => !isManifest(file));
      for (const { path } of now) context.out(`${member.name}: write ${path}\n`);
      const hasKubelet = now.some(({ path }) => KUBELET_FILES.some((each) => each === path));
      const restart = hasKubelet
        ? "systemctl daemon-reload\nsystemctl enable --quiet kubelet\nsystemctl restart kubelet\n"
        : "";
      const dirs = `mkdir -p ${word(KUBEADM_MANIFEST.slice(0, KUBEADM_MANIFEST.lastIndexOf("/")))}\n`;
      if (now.length > 0) await runOn(context, member.ssh, dirs + now.map(writeScript).join("") + restart);
    }),
  );
  const changed = plans.flatMap((plan) => plan.differing.filter(isManifest).map((manifest) => ({ plan, manifest })));
  const founding = changed.filter(({ plan }) => !plan.hasManifest);
  await Promise.all(
    founding.map(async ({ plan: { member }, manifest }) => {
      context.out(`${member.name}: write ${manifest.path}, which starts its pod\n`);
      await runOn(context, member.ssh, writeScript(manifest));
    }),
  );
  if (founding.length > 0) await Promise.all(inventory.members.map((member) => untilHealthy(context, cluster, member)));
  for (const { plan, manifest } of changed.filter((each) => each.plan.hasManifest)) {
    const { member } = plan;
    await refuseUnlessHealthy(context, cluster, member, "restarted");
    context.out(`${member.name}: write ${manifest.path}, which restarts its pod\n`);
    await runOn(context, member.ssh, writeScript(manifest));
    await untilHealthy(context, cluster, member);
  }
}

/** Beside it and renamed, outside of the kubelet's directory: the kubelet takes every file there for a pod. */
function writeScript({ path, content, mode }: HostFile): string {
  const dir = path.slice(0, path.lastIndexOf("/"));
  const fresh = word(path === KUBEADM_MANIFEST ? "/etc/kubernetes/.etcd.yaml.new" : `${path}.new`);
  return `mkdir -p ${word(dir)}
rm -f ${fresh}
(umask 077; base64 -d > ${fresh}) <<'END-OF-CONTENT'
${Buffer.from(content).toString("base64")}
END-OF-CONTENT
chmod ${mode.toString(8)} ${fresh}
chown root: ${fresh}
mv ${fresh} ${word(path)}
`;
}
