import { quote } from "../../base/quote.ts";
import { GoValueError } from "./go-value.ts";

/**
 * The URLs that members listen on and advertise, parsed as in etcd: `http://host:port`, `https://host:port`,
 * `unix://path` and `unixs://path`. The text is kept unchanged, because members compare URLs as texts.
 */
export interface Url {
  readonly scheme: "http" | "https" | "unix" | "unixs";
  /** Host and port as written, such as "10.0.0.1:2379" or "[::1]:2379"; for a Unix socket the part before the path. */
  readonly host: string;
  /** The host alone, without brackets. */
  readonly hostname: string;
  /** The port alone; empty when there is none (Unix sockets only). */
  readonly port: string;
  /** Only Unix sockets have one. */
  readonly path: string;
  /** The URL as etcd prints it. */
  readonly text: string;
}

/** For a Unix socket: its path, relative to the working directory or absolute. */
export const unixSocketPath = (url: Url): string => url.host + url.path;

export const isUnixSocket = (url: Url): boolean => url.scheme === "unix" || url.scheme === "unixs";
export const isTls = (url: Url): boolean => url.scheme === "https" || url.scheme === "unixs";

export const urlTexts = (urls: readonly Url[]): string[] => urls.map((url) => url.text);

/** URLs from a comma-separated list, sorted by text. Throws `GoValueError` with etcd's words. */
export function parseUrls(list: string): Url[] {
  return sortUrls(list.split(",").map((text) => parseMemberUrl(text.trim())));
}

function sortUrls(urls: Url[]): Url[] {
  return urls.sort((a, b) => Buffer.compare(Buffer.from(a.text), Buffer.from(b.text)));
}

function parseMemberUrl(text: string): Url {
  const { scheme, host, path, rest } = parseGoUrl(text);
  if (scheme === "http" || scheme === "https") {
    const address = splitHostPort(host);
    if (address === undefined) throw new GoValueError(`URL address does not have the form "host:port": ${text}`);
    if (path !== "") throw new GoValueError(`URL must not contain a path: ${text}`);
    return { scheme, host, hostname: address.hostname, port: address.port, path, text: `${scheme}:${rest}` };
  }
  if (scheme !== "unix" && scheme !== "unixs") {
    throw new GoValueError(`URL scheme must be http, https, unix, or unixs: ${text}`);
  }
  const [, hostname, port] = /^(.*?)(?::(\d*))?$/.exec(host)!;
  return { scheme, host, hostname: hostname!, port: port ?? "", path, text: `${scheme}:${rest}` };
}

/** Go's net.SplitHostPort; undefined where that fails. */
export function splitHostPort(host: string): { hostname: string; port: string } | undefined {
  const match = /^(?:\[([^[\]]*)\]|([^:[\]]*)):([^:[\]]*)$/.exec(host);
  if (match === null) return undefined;
  return { hostname: match[1] ?? match[2] ?? "", port: match[3]! };
}

interface GoUrl {
  readonly scheme: string;
  readonly host: string;
  readonly path: string;
  /** The rest after the scheme when the URL is printed. */
  readonly rest: string;
}

/** The part of Go's url.Parse relevant to these URLs, with its error texts. */
function parseGoUrl(text: string): GoUrl {
  const fail = (why: string): never => {
    throw new GoValueError(`parse ${quote(text)}: ${why}`);
  };
  // biome-ignore lint/suspicious/noControlCharactersInRegex: Go refuses exactly these.
  if (/[\x00-\x1f\x7f]/.test(text))
    throw new GoValueError(`parse ${quote(text)}: net/url: invalid control character in URL`);
  const scheme = /^([a-zA-Z][a-zA-Z0-9+.-]*):/.exec(text)?.[1];
  if (scheme === undefined) {
    if (text.startsWith(":")) fail("missing protocol scheme");
    const slash = text.indexOf("/");
    const first = slash < 0 ? text : text.slice(0, slash);
    if (first.includes(":")) fail("first path segment in URL cannot contain colon");
    return { scheme: "", host: "", path: text, rest: text };
  }
  const after = text.slice(scheme.length + 1);
  const bare = after.replace(/[?#].*$/, "");
  const lower = scheme.toLowerCase();
  // "http:/x" has a path and no host, "http:x" neither.
  if (!bare.startsWith("//")) return { scheme: lower, host: "", path: bare.startsWith("/") ? bare : "", rest: after };
  const slash = bare.indexOf("/", 2);
  const authority = bare.slice(2, slash < 0 ? undefined : slash);
  const host = authority.slice(authority.lastIndexOf("@") + 1);
  checkHost(host, fail);
  return { scheme: lower, host, path: slash < 0 ? "" : bare.slice(slash), rest: after };
}

function checkHost(host: string, fail: (why: string) => never): void {
  if (host.startsWith("[")) {
    const close = host.lastIndexOf("]");
    if (close < 0) fail("missing ']' in host");
    const port = host.slice(close + 1);
    if (!/^(:\d*)?$/.test(port)) fail(`invalid port ${quote(port)} after host`);
    return;
  }
  const colon = host.indexOf(":");
  if (colon >= 0 && !/^:\d*$/.test(host.slice(colon))) fail(`invalid port ${quote(host.slice(colon))} after host`);
  const badEscape = /%(?![89a-fA-F][0-9a-fA-F])(..?)?/.exec(host);
  if (badEscape !== null) fail(`invalid URL escape ${quote(badEscape[0])}`);
  const bad = /[ "<>\\^`{|}]/.exec(host);
  if (bad !== null) fail(`invalid character ${quote(bad[0])} in host name`);
}

/** Members by name, each with its peer URLs, from `--initial-cluster`. */
export type UrlsByMember = ReadonlyMap<string, readonly Url[]>;

/** Parses `a=http://1.1.1.1:2380,a=http://2.2.2.2:2380,b=…`. Throws `GoValueError` with etcd's words. */
export function parseUrlsByMember(text: string): UrlsByMember {
  const lists = new Map<string, string[]>();
  for (const pair of text.split(",")) {
    if (pair === "") continue;
    const equals = pair.indexOf("=");
    const name = equals < 0 ? pair : pair.slice(0, equals);
    const list = lists.get(name) ?? [];
    list.push(equals < 0 ? "" : pair.slice(equals + 1));
    lists.set(name, list);
  }
  return new Map([...lists].map(([name, list]) => [name, sortUrls(list.map((url) => parseMemberUrl(url.trim())))]));
}

/** The inverse, sorted, as etcd logs it. */
export function formatUrlsByMember(members: ReadonlyMap<string, readonly (Url | string)[]>): string {
  const pairs = [...members].flatMap(([name, urls]) =>
    urls.map((url) => `${name}=${typeof url === "string" ? url : url.text}`),
  );
  return pairs.sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b))).join(",");
}

/** `name=url,name=url`: a cluster of only this member. */
export const clusterOf = (name: string, urls: readonly Url[]): string =>
  urls.map((url) => `${name === "" ? "default" : name}=${url.text}`).join(",");
