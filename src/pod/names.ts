/** Names and addresses of the pods of one set. */
import type { PodSettings } from "./settings.ts";

export const podName = ({ set }: Pick<PodSettings, "set">, ordinal: number): string => `${set}-${ordinal}`;

/** Undefined for a member that is no pod of this set. */
export function ordinalOf({ set }: Pick<PodSettings, "set">, name: string): number | undefined {
  const digits = name.startsWith(`${set}-`) ? name.slice(set.length + 1) : "";
  return /^(0|[1-9]\d*)$/.test(digits) ? Number(digits) : undefined;
}

export function hostOf(settings: PodSettings, pod: string): string {
  const { hostTemplate, service, namespace, domain } = settings;
  const values: Readonly<Record<string, string>> = {
    pod,
    service,
    namespace,
    domain,
    ordinal: String(ordinalOf(settings, pod) ?? ""),
  };
  return hostTemplate.replace(/\{(\w+)\}/g, (whole, name: string) => values[name] ?? whole);
}

export const clientUrlOf = (settings: PodSettings, pod: string): string =>
  urlOf(settings.clientTls !== undefined, hostOf(settings, pod), settings.clientPort);

export const peerUrlOf = (settings: PodSettings, pod: string): string =>
  urlOf(settings.peerTls !== undefined, hostOf(settings, pod), settings.peerPort);

export function urlOf(isSecure: boolean, host: string, port: number): string {
  return `${isSecure ? "https" : "http"}://${host.includes(":") ? `[${host}]` : host}:${port}`;
}
