/**
 * Member addresses as users write them: `host:port`, `http://host:port`, `https://host:port`, `unix:///path` or
 * `unixs:///path`. Source: etcd v3.7, client/v3/internal/endpoint; the error texts are those of Go's net package.
 */
import { KvorumError } from "../base/errors.ts";
import { quote } from "../base/quote.ts";

export interface Address {
  /** Whether the endpoint asks for TLS; undefined leaves it to the caller. */
  readonly secure: boolean | undefined;
  readonly host: string;
  readonly port: number;
  /** Path of a Unix socket, instead of host and port. */
  readonly path: string | undefined;
}

/** The text is not a member address. */
export class EndpointError extends KvorumError {
  override name = "EndpointError";
  readonly code = "ERR_ENDPOINT";
}

/** Throws EndpointError. */
export function parseEndpoint(endpoint: string): Address {
  const unix = /^unix(s?):(?:\/\/)?(.*)$/s.exec(endpoint);
  if (unix !== null) {
    if (unix[2] === "") throw new EndpointError(`address ${endpoint}: names no socket`);
    // The file name of the socket gives the expected host name of the certificate.
    const host = unix[2]!.replace(/^.*\//s, "").replace(/:.*$/s, "");
    return { secure: unix[1] === "s" ? true : undefined, host, port: 0, path: unix[2]! };
  }
  const url = /^([^/?#]*):\/\/([^/?#]*)/.exec(endpoint);
  if (url === null) return { secure: undefined, path: undefined, ...splitHostPort(endpoint) };
  const [, scheme, authority] = url as unknown as [string, string, string];
  if (scheme !== "http" && scheme !== "https") {
    const known = "an endpoint is host:port, http://host:port, https://host:port or unix:///path";
    throw new EndpointError(`address ${endpoint}: unknown scheme ${quote(scheme)}; ${known}`);
  }
  return { secure: scheme === "https", path: undefined, ...splitHostPort(authority) };
}

function splitHostPort(text: string): { readonly host: string; readonly port: number } {
  const fail = (problem: string): never => {
    throw new EndpointError(`address ${text}: ${problem}`);
  };
  if (text === "") throw new EndpointError("missing address: an endpoint is empty");
  const bracketed = /^\[([^\]]*)\](.*)$/s.exec(text);
  if (text.startsWith("[") && bracketed === null) fail("missing ']' in address");
  const colon = text.lastIndexOf(":");
  const [host, rest] = bracketed ? [bracketed[1]!, bracketed[2]!] : [text.slice(0, colon), text.slice(colon)];
  if (colon < 0 || rest === "" || rest === ":") fail("missing port in address");
  if (!bracketed && host.includes(":")) fail("too many colons in address");
  if (!/^:\d+$/.test(rest) || Number(rest.slice(1)) > 65535) fail("invalid port");
  if (host === "") return { host: "localhost", port: Number(rest.slice(1)) };
  return { host, port: Number(rest.slice(1)) };
}

/** `host:port`, with brackets around an IPv6 address. */
export function hostPort({ host, port }: Pick<Address, "host" | "port">): string {
  return host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`;
}
