import type { FlagKind } from "../settings/flag-spec.ts";
import { flagSpecs } from "../settings/flags.ts";
import { FILE_ONLY } from "../settings/settings.ts";

/** The Go types of the file's fields, as they are named in the complaints about them. */
export type GoType =
  | "string"
  | "bool"
  | "int"
  | "int64"
  | "uint"
  | "uint64"
  | "uint32"
  | "time.Duration"
  | "[]string"
  | "config.V2DeprecationEnum";

/** A field, and the flag (or setting of the file alone) that it sets; without one it is checked and not used. */
export interface FieldSchema {
  readonly type: GoType;
  readonly flag?: string;
}

export interface ObjectSchema {
  /** The name of the Go struct, for complaints about its fields. */
  readonly goName: string;
  /** The same as the type of a field. */
  readonly goType: string;
  readonly fields: Readonly<Record<string, FieldSchema | ObjectSchema>>;
}

/** Flags that the file has under another name, or not at all. */
const NOT_TOP_LEVEL = new Set([
  "raft-read-timeout",
  "raft-write-timeout",
  "discovery-fallback",
  "socket-reuse-port",
  "socket-reuse-address",
]);

const isTopLevel = (name: string, section: string): boolean =>
  !NOT_TOP_LEVEL.has(name) &&
  (section !== "Security" || TOP_LEVEL_SECURITY.has(name)) &&
  name !== "peer-skip-client-san-verification" &&
  (!name.startsWith("discovery-") || name.startsWith("discovery-srv"));

const TOP_LEVEL_SECURITY = new Set([
  "self-signed-cert-validity",
  "cipher-suites",
  "cors",
  "host-whitelist",
  "tls-min-version",
  "tls-max-version",
]);

const TYPES: Readonly<Record<FlagKind, GoType>> = {
  text: "string",
  bool: "bool",
  int: "int",
  int64: "int64",
  uint: "uint",
  uint64: "uint64",
  uint32: "uint32",
  duration: "time.Duration",
  urls: "string",
  origins: "string",
  set: "[]string",
  list: "[]string",
  choice: "string",
  choices: "config.V2DeprecationEnum",
  features: "string",
};

function topLevel(): Record<string, FieldSchema> {
  const fields: Record<string, FieldSchema> = {};
  for (const { name, kind, section } of flagSpecs) {
    if (isTopLevel(name, section)) fields[name] = { type: TYPES[kind], flag: name };
  }
  fields["host-whitelist"] = { type: "string", flag: "host-whitelist" };
  return fields;
}

const text = (flag?: string): FieldSchema => ({ type: "string", ...(flag === undefined ? {} : { flag }) });
const bool = (flag?: string): FieldSchema => ({ type: "bool", ...(flag === undefined ? {} : { flag }) });
const list = (flag?: string): FieldSchema => ({ type: "[]string", ...(flag === undefined ? {} : { flag }) });
const duration = (flag: string): FieldSchema => ({ type: "time.Duration", flag });

const security = (fields: ObjectSchema["fields"]): ObjectSchema => ({
  goName: "securityConfig",
  goType: "embed.securityConfig",
  fields,
});

const discoveryClient: ObjectSchema = {
  goName: "ConfigSpec",
  goType: "clientv3.ConfigSpec",
  fields: {
    endpoints: list("discovery-endpoints"),
    "request-timeout": duration("discovery-request-timeout"),
    "dial-timeout": duration("discovery-dial-timeout"),
    "keepalive-time": duration("discovery-keepalive-time"),
    "keepalive-timeout": duration("discovery-keepalive-timeout"),
    "max-request-bytes": { type: "int" },
    "max-recv-bytes": { type: "int" },
    secure: {
      goName: "SecureConfig",
      goType: "clientv3.SecureConfig",
      fields: {
        cert: text("discovery-cert"),
        key: text("discovery-key"),
        cacert: text("discovery-cacert"),
        "server-name": text(),
        "insecure-transport": bool("discovery-insecure-transport"),
        "insecure-skip-tls-verify": bool("discovery-insecure-skip-tls-verify"),
      },
    },
    auth: {
      goName: "AuthConfig",
      goType: "clientv3.AuthConfig",
      fields: { username: text("discovery-user"), password: text("discovery-password"), token: text() },
    },
  },
};

/** The whole file. Most keys are flags by the same name; sections hold the rest. */
export const fileSchema: ObjectSchema = {
  goName: "configYAML",
  goType: "embed.configYAML",
  fields: {
    ...topLevel(),
    "client-transport-security": security({
      "cert-file": text("cert-file"),
      "key-file": text("key-file"),
      "client-cert-file": text("client-cert-file"),
      "client-key-file": text("client-key-file"),
      "client-cert-auth": bool("client-cert-auth"),
      "trusted-ca-file": text("trusted-ca-file"),
      "auto-tls": bool("auto-tls"),
      "allowed-cn": list(FILE_ONLY.clientAllowedCn),
      "allowed-hostname": list("client-cert-allowed-hostname"),
      "skip-client-san-verification": bool(FILE_ONLY.clientSkipSan),
    }),
    "peer-transport-security": security({
      "cert-file": text("peer-cert-file"),
      "key-file": text("peer-key-file"),
      "client-cert-file": text("peer-client-cert-file"),
      "client-key-file": text("peer-client-key-file"),
      "client-cert-auth": bool("peer-client-cert-auth"),
      "trusted-ca-file": text("peer-trusted-ca-file"),
      "auto-tls": bool("peer-auto-tls"),
      "allowed-cn": list("peer-cert-allowed-cn"),
      "allowed-hostname": list("peer-cert-allowed-hostname"),
      "skip-client-san-verification": bool("peer-skip-client-san-verification"),
    }),
    "discovery-config": {
      goName: "DiscoveryConfig",
      goType: "v3discovery.DiscoveryConfig",
      fields: { token: text("discovery-token"), client: discoveryClient },
    },
    "socket-options": {
      goName: "SocketOpts",
      goType: "transport.SocketOpts",
      fields: { "reuse-port": bool("socket-reuse-port"), "reuse-address": bool("socket-reuse-address") },
    },
  },
};
