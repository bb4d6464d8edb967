import { allSettings, type SettingName } from "../settings/definitions.ts";
import type { GoType } from "../settings/kinds.ts";

/** A field, and its setting; without one it is checked but not used. */
export interface FieldSchema {
  readonly type: GoType;
  readonly setting?: SettingName;
}

export interface ObjectSchema {
  /** The name of the Go struct, for errors about its fields. */
  readonly goName: string;
  /** The same as a field's type. */
  readonly goType: string;
  readonly fields: ReadonlyMap<string, FieldSchema | ObjectSchema>;
}

/** The sections of the file by path, and the Go structs that etcd reads them into; outer ones first. */
const SECTIONS: readonly (readonly [path: string, goName: string, goPackage: string])[] = [
  ["client-transport-security", "securityConfig", "embed"],
  ["peer-transport-security", "securityConfig", "embed"],
  ["discovery-config", "DiscoveryConfig", "v3discovery"],
  ["discovery-config.client", "ConfigSpec", "clientv3"],
  ["discovery-config.client.secure", "SecureConfig", "clientv3"],
  ["discovery-config.client.auth", "AuthConfig", "clientv3"],
  ["socket-options", "SocketOpts", "transport"],
];

/** Keys that etcd accepts and that are unused here too. */
const UNUSED: readonly (readonly [path: string, type: GoType])[] = [
  ["discovery-config.client.max-request-bytes", "int"],
  ["discovery-config.client.max-recv-bytes", "int"],
  ["discovery-config.client.secure.server-name", "string"],
  ["discovery-config.client.auth.token", "string"],
];

/** The whole file: each setting at its defined path. Most are at the top level, under their own names. */
export const fileSchema: ObjectSchema = makeSchema();

function makeSchema(): ObjectSchema {
  const root = section("configYAML", "embed");
  for (const [path, goName, goPackage] of SECTIONS) put(root, path, section(goName, goPackage));
  for (const { name, kind, file = name } of allSettings) {
    if (file !== false) put(root, file, { type: kind.goType, setting: name });
  }
  for (const [path, type] of UNUSED) put(root, path, { type });
  return root;
}

type Section = ObjectSchema & { readonly fields: Map<string, FieldSchema | ObjectSchema> };

function section(goName: string, goPackage: string): Section {
  return { goName, goType: `${goPackage}.${goName}`, fields: new Map() };
}

function put(root: Section, path: string, field: FieldSchema | Section): void {
  const keys = path.split(".");
  const last = keys.pop()!;
  let at = root;
  for (const key of keys) at = at.fields.get(key) as Section;
  at.fields.set(last, field);
}
