/**
 * An inventory: one YAML file that says what a cluster is to be. Reading it checks everything that can be checked without
 * touching a host, and reports all that is wrong at once.
 */
import { isIP } from "node:net";
import { dirname, resolve } from "node:path";
import { parseDocument } from "yaml";
import { messageOf } from "../../base/errors.ts";
import { DeployError } from "../common/context.ts";
import { readRequired } from "../common/files.ts";
import type { SetOptions } from "../pki/set.ts";
import { type CGROUP_DRIVERS, differences, INVENTORY_SCHEMA, type KUBEADM_APIS, type STYLES } from "./schema.ts";

export type Style = (typeof STYLES)[number];

export interface Member {
  readonly name: string;
  readonly address: string;
  readonly ssh: string;
  readonly zone: string | undefined;
  readonly names: readonly string[];
}

export interface Inventory {
  readonly cluster: string;
  readonly token: string;
  readonly members: readonly Member[];
  readonly program: string;
  /** Absolute path of a local program or archive of programs; `{arch}` stands for the host's architecture. */
  readonly copy: string | undefined;
  /** Absolute path of the public key with which the checksums of an archive are signed. */
  readonly signedBy: string | undefined;
  readonly style: Style;
  readonly user: string;
  readonly service: string;
  readonly dataDir: string;
  readonly walDir: string | undefined;
  readonly configDir: string;
  /** Copied programs are here, each version in a directory of its own. */
  readonly releasesDir: string;
  readonly clientPort: number;
  readonly peerPort: number;
  readonly loopback: boolean;
  /** By the names of etcd's flags. */
  readonly tuning: ReadonlyMap<string, string>;
  readonly certificates: Pick<SetOptions, "dir" | "algorithm" | "days" | "authorityDays" | "isShared">;
  /** Absolute path of the file with the users; without it authentication is left as it is. */
  readonly usersFile: string | undefined;
  /** For members as static pods. */
  readonly kubeadm: Kubeadm;
  /** What is allowed and probably not meant. */
  readonly warnings: readonly string[];
}

export interface Kubeadm {
  readonly image: string;
  readonly configApi: (typeof KUBEADM_APIS)[number];
  readonly cgroupDriver: (typeof CGROUP_DRIVERS)[number];
  readonly runtimeEndpoint: string;
  /** The member whose host gets the authority's key. */
  readonly caKeyOn: string | undefined;
}

/** The file as the schema has it. */
interface File {
  readonly cluster: string;
  readonly token?: string;
  readonly members: readonly {
    readonly name: string;
    readonly address: string;
    readonly ssh?: string;
    readonly zone?: string;
    readonly names?: readonly string[];
  }[];
  readonly program?: string;
  readonly copy?: string;
  readonly "signed-by"?: string;
  readonly style?: Style;
  readonly user?: string;
  readonly service?: string;
  readonly directories?: {
    readonly data?: string;
    readonly wal?: string;
    readonly config?: string;
    readonly releases?: string;
  };
  readonly ports?: { readonly client?: number; readonly peer?: number };
  readonly loopback?: boolean;
  readonly authentication?: string;
  readonly tuning?: Readonly<Record<string, string | number>>;
  readonly certificates?: {
    readonly directory?: string;
    readonly algorithm?: SetOptions["algorithm"];
    readonly days?: number;
    readonly "ca-days"?: number;
    readonly shared?: boolean;
  };
  readonly kubeadm?: {
    readonly image?: string;
    readonly "config-api"?: Kubeadm["configApi"];
    readonly "cgroup-driver"?: Kubeadm["cgroupDriver"];
    readonly "runtime-endpoint"?: string;
    readonly "ca-key-on"?: string;
  };
}

const FILE_BYTES_MAX = 1 << 20;

/** Throws DeployError with everything that is wrong. */
export function readInventory(path: string): Inventory {
  return parseInventory(readRequired(path, "the inventory"), path);
}

/** As `readInventory`, of a text that stands at `path` or is to stand there. Throws DeployError. */
export function parseInventory(text: string, path: string): Inventory {
  if (text.length > FILE_BYTES_MAX) throw new DeployError(`${path} is larger than ${FILE_BYTES_MAX} bytes`);
  const document = parseDocument(text);
  const broken = document.errors[0];
  if (broken !== undefined) throw new DeployError(`${path} is not YAML: ${broken.message}`);
  let value: unknown;
  try {
    value = document.toJS({ maxAliasCount: 100 });
  } catch (error) {
    throw new DeployError(`${path} is not YAML that can be used: ${messageOf(error)}`);
  }
  if (!isFile(value)) throw wrong(path, differences(INVENTORY_SCHEMA, value));
  const problems = problemsOf(value);
  if (problems.length > 0) throw wrong(path, problems);
  return complete(value, dirname(resolve(path)));
}

const isFile = (value: unknown): value is File => differences(INVENTORY_SCHEMA, value).length === 0;

const wrong = (path: string, problems: readonly string[]): DeployError =>
  new DeployError(`${path} cannot be used:\n${problems.map((problem) => `  ${problem}`).join("\n")}`);

function problemsOf(file: File): string[] {
  const found: string[] = [];
  const { members, ports, directories, tuning = {} } = file;
  for (const [i, { name, address }] of members.entries()) {
    if (isIP(address) === 0)
      found.push(`members[${i}].address is ${address}: etcd listens on IP addresses only; put DNS names under names`);
    else if (/^(0\.0\.0\.0|127\.|::1?$)/.test(address) && members.length > 1)
      found.push(`members[${i}].address is ${address}, at which no other member reaches it`);
    if (members.findIndex((other) => other.name === name) < i) found.push(`the name ${name} is given twice`);
    if (members.findIndex((other) => other.address === address) < i)
      found.push(`the address ${address} is given twice`);
  }
  if ((ports?.client ?? 2379) === (ports?.peer ?? 2380)) found.push("ports.client and ports.peer are the same");
  const { data = "/var/lib/etcd", wal } = directories ?? {};
  if (data.split("/").filter(Boolean).length < 2)
    found.push(`directories.data is ${data}: take a directory of its own, such as /var/lib/etcd`);
  if (wal !== undefined && (wal === data || wal.startsWith(`${data}/member`)))
    found.push(
      `directories.wal is ${wal}: it lies where the data is; leave it out, or name a directory on another disk`,
    );
  const keyOn = file.kubeadm?.["ca-key-on"] ?? "none";
  if (keyOn !== "none" && !members.some(({ name }) => name === keyOn))
    found.push(`kubeadm.ca-key-on is ${keyOn}, which is no member; "none" keeps the key here`);
  const heartbeat = Number(tuning["heartbeat-interval"] ?? 100);
  const election = Number(tuning["election-timeout"] ?? 1000);
  if (election < 5 * heartbeat)
    found.push(
      `tuning.election-timeout is ${election}: it is at least five times the heartbeat-interval, ${heartbeat}`,
    );
  return found;
}

function complete(file: File, base: string): Inventory {
  const { cluster, members, directories = {}, ports = {}, certificates = {} } = file;
  return {
    cluster,
    token: file.token ?? cluster,
    members: members.map(({ name, address, ssh, zone, names }) => ({
      name,
      address,
      ssh: ssh ?? address,
      zone,
      names: names ?? [],
    })),
    program: file.program ?? "/usr/local/bin/etcd",
    copy: file.copy === undefined ? undefined : resolve(base, file.copy),
    signedBy: file["signed-by"] === undefined ? undefined : resolve(base, file["signed-by"]),
    style: file.style ?? "conf",
    user: file.user ?? "etcd",
    service: file.service ?? "etcd",
    dataDir: directories.data ?? "/var/lib/etcd",
    walDir: directories.wal,
    configDir: directories.config ?? "/etc/etcd",
    releasesDir: directories.releases ?? "/opt/etcd",
    clientPort: ports.client ?? 2379,
    peerPort: ports.peer ?? 2380,
    loopback: file.loopback ?? true,
    tuning: new Map(Object.entries(file.tuning ?? {}).map(([name, value]) => [name, String(value)])),
    certificates: {
      dir: resolve(base, certificates.directory ?? "pki"),
      algorithm: certificates.algorithm ?? "ecdsa-p256",
      days: certificates.days ?? 365,
      authorityDays: certificates["ca-days"] ?? 3650,
      isShared: certificates.shared ?? false,
    },
    usersFile: file.authentication === undefined ? undefined : resolve(base, file.authentication),
    kubeadm: {
      image: file.kubeadm?.image ?? "registry.k8s.io/etcd:3.6.8-0",
      configApi: file.kubeadm?.["config-api"] ?? "v1beta4",
      cgroupDriver: file.kubeadm?.["cgroup-driver"] ?? "systemd",
      runtimeEndpoint: file.kubeadm?.["runtime-endpoint"] ?? "unix:///var/run/containerd/containerd.sock",
      // As kubeadm's guide has it, whose first host makes all certificates.
      caKeyOn: file.kubeadm?.["ca-key-on"] ?? members[0]?.name,
    },
    warnings: warningsOn(file),
  };
}

const QUOTA_BYTES_ADVISED = 8 * 1024 ** 3;

function warningsOn({ members, user, tuning = {} }: File): string[] {
  const found: string[] = [];
  const count = members.length;
  if (count % 2 === 0) found.push(`${count} members bear the loss of no more than ${count - 1} do; take an odd number`);
  if (count === 1) found.push("one member: its host's end is the cluster's end");
  for (const zone of new Set(members.flatMap((member) => member.zone ?? []))) {
    const inside = members.filter((member) => member.zone === zone).length;
    if (inside > (count - 1) / 2 && count > 2)
      found.push(`zone ${zone} has ${inside} of ${count} members: without it there is no majority`);
  }
  if (user === "root") found.push("user is root: etcd needs no rights of its own");
  const quota = Number(tuning["quota-backend-bytes"] ?? 0);
  if (quota > QUOTA_BYTES_ADVISED) found.push(`tuning.quota-backend-bytes is above 8 GiB, which etcd advises against`);
  return found;
}

/** The certificates of this cluster. A member's have its name too, as containers and DNS know it. */
export function certificateSet(inventory: Inventory): SetOptions {
  const local = ["127.0.0.1", "localhost"];
  return {
    ...inventory.certificates,
    members: new Map(
      inventory.members.map(({ name, address, names }) => [name, [...new Set([address, name, ...names, ...local])]]),
    ),
    clients: ["root"],
    renewDays: 30,
    clusterName: inventory.cluster,
    signsElsewhere: false,
  };
}
