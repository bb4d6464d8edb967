/**
 * The flags of every etcdctl command, and the ETCDCTL_ variables that set them. A flag overrides its default; giving a
 * flag and its variable is an error. Source: etcd v3.7, etcdctl/ctlv3/ctl.go and pkg/flags/flag.go.
 */
import type { Flag, FlagSet } from "../base/flags.ts";
import { ParseError } from "../base/number-text.ts";
import { EXIT, ExitError } from "./exit.ts";
import { type Io, log } from "./io.ts";

export const GLOBAL_FLAGS: readonly Flag[] = [
  { name: "endpoints", kind: "strings", value: ["127.0.0.1:2379"], usage: "addresses of the members to talk to" },
  { name: "debug", kind: "bool", value: false, usage: "print the settings in force on standard error" },
  {
    name: "write-out",
    shorthand: "w",
    kind: "string",
    value: "simple",
    usage: "format of the output: fields, json, protobuf, simple or table",
  },
  { name: "hex", kind: "bool", value: false, usage: "print bytes, and in some formats ids, in hexadecimal" },
  { name: "dial-timeout", kind: "duration", value: 2_000, usage: "time that setting up a connection may take" },
  { name: "command-timeout", kind: "duration", value: 5_000, usage: "time that a short command may take" },
  { name: "keepalive-time", kind: "duration", value: 2_000, usage: "time between pings of a connection" },
  { name: "keepalive-timeout", kind: "duration", value: 6_000, usage: "time that the answer to a ping may take" },
  { name: "max-request-bytes", kind: "int", value: 0, usage: "largest request in bytes that is sent (0: 2 MiB)" },
  { name: "max-recv-bytes", kind: "int", value: 0, usage: "largest response in bytes that is accepted (0: no limit)" },
  { name: "insecure-transport", kind: "bool", value: true, usage: "speak without TLS where nothing asks for it" },
  { name: "insecure-discovery", kind: "bool", value: true, usage: "accept discovered endpoints without TLS" },
  {
    name: "insecure-skip-tls-verify",
    kind: "bool",
    value: false,
    usage: "accept any server certificate, which protects from nobody: for tests only",
  },
  { name: "cert", kind: "string", value: "", usage: "file of the client certificate to identify with" },
  { name: "key", kind: "string", value: "", usage: "file of the client certificate's key" },
  {
    name: "cacert",
    kind: "string",
    value: "",
    usage: "file of the certificate authorities that servers are checked against",
  },
  {
    name: "auth-jwt-token",
    kind: "string",
    value: "",
    usage: "token to authenticate with, instead of user and password",
  },
  { name: "user", kind: "string", value: "", usage: "user[:password] to authenticate as; asks for a missing password" },
  { name: "password", kind: "string", value: "", usage: "password to authenticate with, when --user has none" },
  {
    name: "discovery-srv",
    shorthand: "d",
    kind: "string",
    value: "",
    usage: "domain whose SRV records name the endpoints",
  },
  { name: "discovery-srv-name", kind: "string", value: "", usage: "suffix of the service name in discovery" },
];

const PREFIX = "ETCDCTL_";
/** Variables that belong to a command, not to a flag. */
const OTHER_VARIABLES = new Set(["ETCDCTL_WATCH_KEY", "ETCDCTL_WATCH_RANGE_END"]);

/** Whether the variable's name, even if mistyped, suggests a secret. */
const isSecret = (variable: string) => /PAS|PW|SECRET|TOKEN|AUTH|USER/.test(variable);

const variableOf = (flag: string) => PREFIX + flag.toUpperCase().replaceAll("-", "_");

/** Sets the flags in `names` that were not given, from their variables. Throws ExitError on a conflict. */
export function applyEnvironment(flags: FlagSet, names: readonly string[], io: Io, isWatch: boolean): void {
  const known = new Map(names.map((name) => [variableOf(name), name]));
  for (const [variable, value] of Object.entries(io.env)) {
    if (!variable.startsWith(PREFIX) || value === undefined) continue;
    const name = known.get(variable);
    // Many documents still set it; there is no other version any more.
    if (variable === "ETCDCTL_API" && value === "3") continue;
    if (name === undefined || (value === "" && !flags.changed(name))) {
      if (!(isWatch && OTHER_VARIABLES.has(variable))) {
        warn(io, "unrecognized environment variable", `${variable}=${isSecret(variable) ? "" : value}`);
      }
    } else if (flags.changed(name)) {
      log(
        io,
        "fatal",
        "conflicting environment variable is shadowed by corresponding command-line flag (either unset environment variable or disable flag))",
        { "environment-variable": variable },
      );
      throw new ExitError(EXIT.error, "");
    } else assign(flags, name, variable, value, io);
  }
}

function assign(flags: FlagSet, name: string, variable: string, value: string, io: Io): void {
  try {
    flags.assign(name, value);
  } catch (error) {
    if (!(error instanceof ParseError)) throw error;
    warn(io, "ignored environment variable with an invalid value", `${variable}=${value}: ${error.message}`);
  }
}

const warn = (io: Io, message: string, variable: string) =>
  log(io, "warn", message, { "environment-variable": variable });

/** The output of `--debug`: each flag by its variable, without secrets. */
export function printSettings(flags: FlagSet, names: readonly string[], io: Io): void {
  for (const name of [...names].sort()) {
    io.err(`${variableOf(name)}=${shown(name, flags.text(name))}\n`);
  }
}

function shown(name: string, value: string): string {
  if (name === "password" || name === "auth-jwt-token") return "";
  // A user's password follows the first colon.
  return name === "user" ? value.replace(/:.*$/s, "") : value;
}
