/**
 * The systemd unit of a member. It reports when it serves (`Type=notify`), is started again when it fails, and may do
 * nothing that etcd does not do: write its data, and speak over the network.
 */
import { asFlags, type Settings } from "../common/settings.ts";
import type { Inventory, Member } from "../inventory/inventory.ts";

export interface UnitOptions {
  readonly inventory: Inventory;
  readonly member: Member;
  readonly settings: Settings;
}

/** Node's compiler writes code to memory, so MemoryDenyWriteExecute is not among these. */
const HARDENING = `NoNewPrivileges=yes
CapabilityBoundingSet=
AmbientCapabilities=
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes
PrivateDevices=yes
ProtectClock=yes
ProtectHostname=yes
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
ProtectProc=invisible
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX AF_NETLINK
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
RemoveIPC=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallErrorNumber=EPERM
UMask=0077`;

export const confPath = ({ configDir }: Inventory): string => `${configDir}/conf.yml`;
export const environmentPath = ({ configDir }: Inventory): string => `${configDir}/etcd.conf`;

export function unitText({ inventory, member, settings }: UnitOptions): string {
  const { user, dataDir, walDir, cluster } = inventory;
  const writable = [dataDir, walDir].filter((path) => path !== undefined).join(" ");
  return `[Unit]
Description=etcd, member ${member.name} of the cluster ${cluster}
Documentation=https://etcd.io/docs/
After=network-online.target
Wants=network-online.target

[Service]
Type=notify
User=${user}
WorkingDirectory=${dataDir}
${configured(inventory, settings)}
Restart=on-failure
RestartSec=5
# A member of a new cluster, or of one without a majority, waits for the others however long it takes.
TimeoutStartSec=infinity
LimitNOFILE=65536
ReadWritePaths=${writable}
${HARDENING}

[Install]
WantedBy=multi-user.target
`;
}

function configured(inventory: Inventory, settings: Settings): string {
  const { program } = inventory;
  switch (inventory.style) {
    case "conf":
      return `ExecStart=${program} --config-file=${confPath(inventory)}`;
    case "environment":
      return `EnvironmentFile=${environmentPath(inventory)}\nExecStart=${program}`;
    case "flags":
      return `ExecStart=${[program, ...asFlags(settings).map(unitWord)].join(" \\\n  ")}`;
  }
}

/** A word of a command line in a unit: percent and dollar signs mean something there. */
function unitWord(word: string): string {
  const escaped = word.replaceAll("%", "%%").replaceAll("$", "$$$$");
  return /[\s"'\\;]/.test(escaped) ? `"${escaped.replaceAll(/["\\]/g, "\\$&")}"` : escaped;
}
