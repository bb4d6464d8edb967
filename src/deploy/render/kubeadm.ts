/**
 * The same cluster as static pods of the kubelet, laid out as kubeadm does for an etcd outside of its control plane: a kubelet
 * that does nothing but run it, kubeadm's configuration for each host, certificates below /etc/kubernetes/pki, and the pod's
 * manifest as `kubeadm init phase etcd local` writes it. Facts from kubeadm 1.36.
 */
import { stringify } from "yaml";
import { readRequired } from "../common/files.ts";
import { asFlags, type Settings } from "../common/settings.ts";
import { certificateSet, type Inventory, type Member } from "../inventory/inventory.ts";
import { authorityPair, clientPair, type Pair, peerPair, serverPair } from "../pki/layout.ts";
import type { SetOptions } from "../pki/set.ts";
import type { HostFile } from "./host.ts";
import { memberSettings } from "./settings.ts";

const PKI = "/etc/kubernetes/pki";
const DROP_IN = "/etc/systemd/system/kubelet.service.d";
export const KUBELET_FILES = [`${DROP_IN}/20-etcd-service-manager.conf`, `${DROP_IN}/kubelet.conf`] as const;
export const KUBEADM_MANIFEST = "/etc/kubernetes/manifests/etcd.yaml";
const METRICS = { host: "127.0.0.1", port: 2381 };
const HEALTHCHECK_CLIENT = "kube-etcd-healthcheck-client";
const APISERVER_CLIENT = "kube-apiserver-etcd-client";

/** The certificates of the members, and of the two clients that Kubernetes has. */
export function kubeadmCertificates(inventory: Inventory): SetOptions {
  const usual = certificateSet(inventory);
  return {
    ...usual,
    isShared: false,
    members: new Map([...usual.members].map(([name, names]) => [name, [...names, "::1"]])),
    clients: [...usual.clients, HEALTHCHECK_CLIENT, APISERVER_CLIENT],
  };
}

/** The certificates have been made. Throws DeployError when one cannot be read. The manifest is the last. */
export function kubeadmFiles(inventory: Inventory, member: Member): HostFile[] {
  const { dir } = inventory.certificates;
  const { caKeyOn, image } = inventory.kubeadm;
  const settings = settingsOf(inventory, member);
  return [
    plain(KUBELET_FILES[0], unitText()),
    plain(KUBELET_FILES[1], kubeletText(inventory)),
    plain("/root/kubeadmcfg.yaml", kubeadmText(inventory, member, settings)),
    plain(`${PKI}/etcd/ca.crt`, read(authorityPair(dir).cert)),
    ...(caKeyOn === member.name ? [secret(`${PKI}/etcd/ca.key`, read(authorityPair(dir).key))] : []),
    ...pair(serverPair(dir, member.name), `${PKI}/etcd/server`),
    ...pair(peerPair(dir, member.name), `${PKI}/etcd/peer`),
    ...pair(clientPair(dir, HEALTHCHECK_CLIENT), `${PKI}/etcd/healthcheck-client`),
    ...pair(clientPair(dir, APISERVER_CLIENT), `${PKI}/apiserver-etcd-client`),
    secret(KUBEADM_MANIFEST, manifestText(inventory, settings, image)),
  ];
}

const plain = (path: string, content: string): HostFile => ({ path, content, mode: 0o644, isUsers: false });
const secret = (path: string, content: string): HostFile => ({ path, content, mode: 0o600, isUsers: false });
const read = (path: string): string => readRequired(path, "a certificate");
const pair = (from: Pair, to: string): HostFile[] => [
  plain(`${to}.crt`, read(from.cert)),
  secret(`${to}.key`, read(from.key)),
];

function settingsOf(inventory: Inventory, member: Member): Settings {
  const at = (name: string) => ({ cert: `${PKI}/etcd/${name}.crt`, key: `${PKI}/etcd/${name}.key` });
  const settings = memberSettings(inventory, member, {
    listen: [member.address, ...(inventory.loopback ? ["127.0.0.1"] : [])],
    hostOf: ({ address }) => address,
    certificates: { ca: `${PKI}/etcd/ca.crt`, server: at("server"), peer: at("peer") },
    dataDir: inventory.dataDir,
    walDir: undefined,
    isFounding: true,
  });
  return settings;
}

/** What the document's configuration says: everything else is kubeadm's own. */
const EXTRA = /^(name|initial-cluster|initial-cluster-state|listen-.*-urls|.*advertise-.*-urls)$/;

function kubeadmText(inventory: Inventory, member: Member, settings: Settings): string {
  const { configApi } = inventory.kubeadm;
  const apiVersion = `kubeadm.k8s.io/${configApi}`;
  const extra = [...settings].filter(([name]) => EXTRA.test(name) || inventory.tuning.has(name));
  const names = [member.address, ...member.names];
  const init = {
    apiVersion,
    kind: "InitConfiguration",
    nodeRegistration: { name: member.name },
    localAPIEndpoint: { advertiseAddress: member.address },
  };
  const cluster = {
    apiVersion,
    kind: "ClusterConfiguration",
    etcd: {
      local: {
        serverCertSANs: names,
        peerCertSANs: names,
        extraArgs:
          configApi === "v1beta3" ? Object.fromEntries(extra) : extra.map(([name, value]) => ({ name, value })),
      },
    },
  };
  return [init, cluster].map((each) => `---\n${stringify(each, { lineWidth: 0 })}`).join("");
}

function manifestText(inventory: Inventory, settings: Settings, image: string): string {
  const probe = (path: string, more: object) => ({
    ...more,
    httpGet: { host: METRICS.host, path, port: "probe-port", scheme: "HTTP" },
    timeoutSeconds: 15,
  });
  const isStock = /(^|\/)etcd[:@]/.test(image);
  const pod = {
    apiVersion: "v1",
    kind: "Pod",
    metadata: {
      annotations: { "kubeadm.kubernetes.io/etcd.advertise-client-urls": settings.get("advertise-client-urls") },
      labels: { component: "etcd", tier: "control-plane" },
      name: "etcd",
      namespace: "kube-system",
    },
    spec: {
      containers: [
        {
          command: ["etcd", ...asFlags(withKubeadmDefaults(settings, image))],
          image,
          imagePullPolicy: "IfNotPresent",
          livenessProbe: probe("/livez", { failureThreshold: 8, initialDelaySeconds: 10, periodSeconds: 10 }),
          name: "etcd",
          ports: [{ containerPort: METRICS.port, name: "probe-port", protocol: "TCP" }],
          readinessProbe: probe("/readyz", { failureThreshold: 3, periodSeconds: 1 }),
          resources: { requests: { cpu: "100m", memory: "100Mi" } },
          startupProbe: probe("/readyz", { failureThreshold: 24, initialDelaySeconds: 10, periodSeconds: 10 }),
          volumeMounts: [
            { mountPath: inventory.dataDir, name: "etcd-data" },
            { mountPath: `${PKI}/etcd`, name: "etcd-certs" },
          ],
        },
      ],
      hostNetwork: true,
      priority: 2_000_001_000,
      priorityClassName: "system-node-critical",
      // The directories of the host are root's; the image of kvorum has another user.
      securityContext: {
        seccompProfile: { type: "RuntimeDefault" },
        ...(isStock ? {} : { runAsUser: 0, runAsGroup: 0 }),
      },
      volumes: [
        { hostPath: { path: `${PKI}/etcd`, type: "DirectoryOrCreate" }, name: "etcd-certs" },
        { hostPath: { path: inventory.dataDir, type: "DirectoryOrCreate" }, name: "etcd-data" },
      ],
    },
  };
  return stringify(pod, { lineWidth: 0 });
}

function withKubeadmDefaults(settings: Settings, image: string): Settings {
  const [, minor] = /:v?3\.(\d+)/.exec(image) ?? [];
  // Before 3.6 both were experimental.
  const isOld = minor !== undefined && Number(minor) < 6;
  const own: Settings = new Map([
    isOld ? ["experimental-initial-corrupt-check", "true"] : ["feature-gates", "InitialCorruptCheck=true"],
    ["listen-metrics-urls", `http://${METRICS.host}:${METRICS.port}`],
    ["snapshot-count", "10000"],
    [isOld ? "experimental-watch-progress-notify-interval" : "watch-progress-notify-interval", "5s"],
  ]);
  // kubeadm gives no token.
  return new Map([...own, ...[...settings].filter(([name]) => name !== "initial-cluster-token")]);
}

/** With a higher number than kubeadm's own, so that it wins. */
const unitText = (): string => `[Service]
# The first line takes back what kubeadm's unit starts.
ExecStart=
ExecStart=/usr/bin/kubelet --config=${KUBELET_FILES[1]}
Restart=always
`;

/** It serves nobody but this host, and asks no control plane. */
function kubeletText({ kubeadm: { cgroupDriver, runtimeEndpoint } }: Inventory): string {
  return stringify({
    apiVersion: "kubelet.config.k8s.io/v1beta1",
    kind: "KubeletConfiguration",
    authentication: { anonymous: { enabled: false }, webhook: { enabled: false } },
    authorization: { mode: "AlwaysAllow" },
    cgroupDriver,
    address: "127.0.0.1",
    containerRuntimeEndpoint: runtimeEndpoint,
    staticPodPath: KUBEADM_MANIFEST.slice(0, KUBEADM_MANIFEST.lastIndexOf("/")),
  });
}
