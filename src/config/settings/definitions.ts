import { auditSettings } from "./audit.ts";
import { authSettings } from "./auth.ts";
import { clusteringSettings } from "./clustering.ts";
import type { Bounds, Setting } from "./definition.ts";
import { featureSettings } from "./features.ts";
import { loggingSettings } from "./logging.ts";
import { memberSettings } from "./member.ts";
import { monitoringSettings } from "./monitoring.ts";
import { securitySettings } from "./security.ts";
import { tracingSettings } from "./tracing.ts";
import { unsafeSettings } from "./unsafe.ts";

/** Every setting by name: all flags of `etcd --help` v3.7 and our own, and the file-only settings. */
export const definitions = {
  ...memberSettings,
  ...clusteringSettings,
  ...securitySettings,
  ...authSettings,
  ...auditSettings,
  ...monitoringSettings,
  ...loggingSettings,
  ...tracingSettings,
  ...featureSettings,
  ...unsafeSettings,
};

export type Definitions = typeof definitions;
export type SettingName = keyof Definitions;

/** The type of a setting's value while it is collected; `Config` may use another unit. */
export type SettingValue<N extends SettingName> = Definitions[N] extends Setting<infer T, infer _> ? T : never;

export interface NamedSetting extends Setting {
  readonly name: SettingName;
}

const named = (settings: { readonly [name: string]: Setting }): NamedSetting[] =>
  Object.entries(settings).map(([name, setting]) => ({ ...setting, name: name as SettingName }));

/** The same as a list, in the order of the help. */
export const allSettings: readonly NamedSetting[] = named(definitions);

/** Settings with a flag, and so a variable. */
export const flagSettings: readonly NamedSetting[] = allSettings.filter((setting) => setting.flag !== false);

/** The sections of the help. */
export const sections: readonly { readonly title: string; readonly settings: readonly NamedSetting[] }[] = [
  { title: "Member", settings: named(memberSettings) },
  { title: "Clustering", settings: named(clusteringSettings) },
  { title: "Security", settings: named(securitySettings) },
  { title: "Auth", settings: named(authSettings) },
  { title: "Audit", settings: named(auditSettings) },
  { title: "Profiling and Monitoring", settings: named(monitoringSettings) },
  { title: "Logging", settings: named(loggingSettings) },
  { title: "Distributed tracing", settings: named(tracingSettings) },
  { title: "Features", settings: named(featureSettings) },
  { title: "Unsafe feature", settings: named(unsafeSettings) },
];

const byFlag: ReadonlyMap<string, NamedSetting> = new Map(flagSettings.map((setting) => [setting.name, setting]));

export const findFlag = (name: string): NamedSetting | undefined => byFlag.get(name);

export const environmentName = (flag: string): string => `ETCD_${flag.toUpperCase().replaceAll("-", "_")}`;

/** A bound from a setting's definition. */
export function boundOf(name: SettingName, bound: Exclude<keyof Bounds, "reason">): number {
  const { bounds }: Setting = definitions[name];
  const value = bounds?.[bound];
  if (value === undefined) throw new Error(`--${name} has no bound "${bound}"`);
  return value;
}
