import { type NamedSetting, sections } from "./settings/definitions.ts";
import { featureHelp } from "./values/feature-gates.ts";

/** Printed after a flag error, and at the top of the help. */
export const usage = `Usage:

  etcd [flags]
    Run a member.

  etcd --version
    Print the version and exit.

  etcd -h | --help
    Print this help and exit.

  etcd --config-file <path>
    Run a member with the settings of a YAML file. Flags and environment variables are then ignored.
    Times in the file are whole nanoseconds (600000000000 for ten minutes), as in etcd.

  etcd gateway start
    Forward TCP connections to the members of a cluster. etcd gateway start --help has its flags.

  etcd grpc-proxy start
    Serve the clients of a cluster and join their watches, renewals and reads. etcd grpc-proxy start --help has its flags.
`;

/** All flags by section, each with its default and description. */
export function flagsHelp(): string {
  let text = "";
  for (const { title, settings } of sections) {
    text += `\n${title}:\n`;
    for (const setting of settings) if (setting.flag !== false) text += flagHelp(setting);
  }
  return `${text}
Every flag can be given as an environment variable: --listen-peer-urls as ETCD_LISTEN_PEER_URLS.
Unsafe flags give up guarantees of the consensus protocol: data may be lost.
`;
}

function flagHelp(setting: NamedSetting): string {
  const defaultText = setting.name === "data-dir" ? "<name>.etcd" : setting.default;
  let text = `  --${setting.name} '${defaultText}'\n    ${setting.help}\n`;
  if (setting.kind.name === "features") for (const line of featureHelp) text += `      ${line}\n`;
  if (setting.status?.state === "no effect") text += `    (no effect: ${setting.status.reason})\n`;
  return text;
}
