/** `kvorum backup unit`: units of systemd that run a backup. */
import { usage } from "../settings.ts";
import type { BackupCommand } from "./context.ts";

export const unit: BackupCommand = {
  name: "unit",
  usage: "-- FLAGS OF RUN",
  short: "Prints a service of systemd that runs `kvorum backup run` with the flags after --",
  example:
    "kvorum backup unit -- --store /backup/etcd --endpoints 10.0.0.1:2379 > /etc/systemd/system/kvorum-backup.service",
  run({ io, args, invocation }) {
    if (invocation.dash !== 0 || args.length === 0) throw usage("give the flags of `kvorum backup run` after --");
    io.out(`[Unit]
Description=Backup of etcd
Wants=network-online.target
After=network-online.target

[Service]
# Credentials, such as AWS_ACCESS_KEY_ID and ETCDCTL_PASSWORD, readable by root alone.
EnvironmentFile=-/etc/kvorum/backup.env
ExecStart=kvorum backup run ${args.map(quoted).join(" ")}
Restart=always
RestartSec=10
MemoryMax=512M
NoNewPrivileges=yes
ProtectHome=yes
PrivateTmp=yes

[Install]
WantedBy=multi-user.target
`);
  },
};

/** As systemd reads words. */
function quoted(word: string): string {
  const escaped = word.replaceAll("%", "%%").replaceAll("$", "$$$$");
  return /^[\w@%+=:,./?&$-]+$/.test(word) ? escaped : `"${escaped.replace(/["\\]/g, "\\$&")}"`;
}
