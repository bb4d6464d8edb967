import { lookup } from "node:dns/promises";
import { isIP } from "node:net";
import type { Clock } from "../../base/clock.ts";
import type { Logger } from "../../base/log.ts";
import { quote } from "../../base/quote.ts";
import { isUnixSocket, splitHostPort, type Url, urlTexts } from "../values/url.ts";

/** Total time for resolving names: DNS may become available later than the member. */
export const RESOLVE_GIVE_UP_MS = 30_000;
const RESOLVE_RETRY_MS = 1000;

export interface ResolveWorld {
  readonly clock: Clock;
  readonly log: Logger;
  /** The address of a host name; by DNS when absent. */
  readonly resolve?: (host: string) => Promise<string>;
}

/**
 * Whether two lists of URLs mean the same addresses: undefined if they do, otherwise the difference, in etcd's words.
 * Names are resolved only where the texts differ, and retried until `deadlineMs` of the clock.
 */
export async function urlDifference(
  a: readonly Url[],
  b: readonly Url[],
  world: ResolveWorld,
  deadlineMs = world.clock.nowMs() + RESOLVE_GIVE_UP_MS,
): Promise<string | undefined> {
  const quoteAll = (urls: readonly Url[]) => `[${urlTexts(urls).map(quote).join(" ")}]`;
  if (a.length !== b.length) return `len(${quoteAll(a)}) != len(${quoteAll(b)})`;
  if (a.every((url, i) => normalized(url) === normalized(b[i]!))) return undefined;
  let resolvedA: string[];
  let resolvedB: string[];
  try {
    resolvedA = (await Promise.all(a.map((url) => resolved(url, world, deadlineMs)))).sort();
    resolvedB = (await Promise.all(b.map((url) => resolved(url, world, deadlineMs)))).sort();
  } catch (error) {
    return (error as Error).message;
  }
  const at = resolvedA.findIndex((text, i) => text !== resolvedB[i]);
  return at < 0 ? undefined : `resolved urls: ${quote(resolvedA[at]!)} != ${quote(resolvedB[at]!)}`;
}

/** IPv6 addresses have many spellings. */
function normalized(url: Url): string {
  const host = isIP(url.hostname) === 6 ? new URL(`http://[${url.hostname}]/`).hostname : url.hostname;
  return isUnixSocket(url) ? url.text : `${url.scheme}://${host}:${url.port}`;
}

/** The URL with an address instead of a name. */
async function resolved(url: Url, world: ResolveWorld, deadlineMs: number): Promise<string> {
  if (isUnixSocket(url) || url.hostname === "localhost" || isIP(url.hostname) !== 0) return normalized(url);
  const { port } = splitHostPort(url.host)!;
  const resolve = world.resolve ?? resolveByDns;
  for (;;) {
    try {
      const address = await resolve(url.hostname);
      world.log.info("resolved URL Host", { url: url.text, host: url.host, "resolved-addr": `${address}:${port}` });
      return `${url.scheme}://${isIP(address) === 6 ? `[${address}]` : address}:${port}`;
    } catch (error) {
      world.log.warn("failed to resolve URL Host", { url: url.text, host: url.host, "retry-interval": "1s", error });
      if (world.clock.nowMs() + RESOLVE_RETRY_MS > deadlineMs) {
        throw new Error(`failed to resolve ${quote(url.text)} (${(error as Error).message})`);
      }
      await new Promise<void>((wake) => world.clock.after(RESOLVE_RETRY_MS, wake));
    }
  }
}

const resolveByDns = async (host: string): Promise<string> => (await lookup(host)).address;
