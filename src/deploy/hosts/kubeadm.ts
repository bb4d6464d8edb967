/**
 * Brings a cluster of static pods to its hosts: what differs is written, certificates at once, for members read them again by
 * themselves, and manifests, with which the kubelet restarts the pod, one host after the other while all others are healthy.
 */
import { createHash } from "node:crypto";
import { httpGet } from "../../doctor/http-get.ts";
import { Cluster, clientUrl, tlsOf } from "../cluster/access.ts";
import { type Context, DeployError } from "../common/context.ts";
import type { Inventory, Member } from "../inventory/inventory.ts";
import type { HostFile } from "../render/host.ts";
import { KUBEADM_MANIFEST, KUBELET_FILES, kubeadmFiles } from "../render/kubeadm.ts";
import { giveUpLead, refuseUnlessHealthy } from "./service.ts";
import { runOn, word } from "./shell.ts";

const SERVES_MS = 300_000;
const METRICS_MS = 3_000;

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
  if (founding.length > 0) await Promise.all(inventory.members.map((member) => untilServes(context, cluster, member)));
  for (const { plan, manifest } of changed.filter((each) => each.plan.hasManifest)) {
    const { member } = plan;
    await refuseUnlessHealthy(context, cluster, member, "restarted");
    await giveUpLead(cluster, member, context.out);
    const before = await startedAt(context, inventory, member);
    context.out(`${member.name}: write ${manifest.path}, which restarts its pod\n`);
    await runOn(context, member.ssh, writeScript(manifest));
    await untilServes(context, cluster, member, before);
  }
}

/** The kubelet may need to fetch the image; and until it restarts the pod, the one `before` still serves. Throws DeployError. */
async function untilServes(context: Context, cluster: Cluster, member: Member, before?: string): Promise<void> {
  const endMs = context.clock.nowMs() + SERVES_MS;
  for (;;) {
    const { tookMs, trouble } = await cluster.look(member);
    const since = before === undefined ? undefined : await startedAt(context, cluster.inventory, member);
    const isNew = before === undefined || (since !== undefined && since !== before);
    if (tookMs !== undefined && isNew) return;
    if (context.clock.nowMs() > endMs)
      throw new DeployError(
        `${member.name} is not healthy (${trouble ?? "its pod was not restarted"}): look at journalctl -u kubelet and at crictl ps -a there. When the cause is removed, repeat the command`,
      );
    await cluster.pause();
  }
}

/** By the member's own metrics; undefined when it does not answer. */
async function startedAt({ clock }: Context, inventory: Inventory, member: Member): Promise<string | undefined> {
  const url = clientUrl(inventory, member);
  const page = await httpGet(url, "/metrics", tlsOf(inventory), METRICS_MS, clock).catch(() => undefined);
  return /^process_start_time_seconds (.+)$/m.exec(page?.body ?? "")?.[1];
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
