/**
 * The names in a certificate and the checks on them: may this client connect, and does it come from an address that its
 * certificate names. Source: etcd's client/pkg/transport/listener_tls.go and Go's crypto/x509.
 */
import type { X509Certificate } from "node:crypto";
import { isIP, isIPv6, SocketAddress } from "node:net";
import { quote } from "../../base/quote.ts";

export interface CertificateNames {
  readonly commonName: string;
  readonly dnsNames: readonly string[];
  readonly ipAddresses: readonly string[];
}

/** Names of addresses and addresses of names. */
export interface NameLookup {
  /** Names of an address. Rejects when there are none. */
  reverse(address: string): Promise<readonly string[]>;
  /** Addresses of a name. Rejects when there are none. */
  forward(name: string): Promise<readonly string[]>;
}

export function namesOf(certificate: X509Certificate): CertificateNames {
  const dnsNames: string[] = [];
  const ipAddresses: string[] = [];
  for (const entry of splitNames(certificate.subjectAltName ?? "")) {
    if (entry.startsWith("DNS:")) dnsNames.push(unquote(entry.slice(4)));
    else if (entry.startsWith("IP Address:")) ipAddresses.push(shortAddress(entry.slice(11)));
  }
  return { commonName: commonNameOf(certificate), dnsNames, ipAddresses };
}

/** The last one, if there are several, as in Go. */
function commonNameOf(certificate: X509Certificate): string {
  const { CN } = certificate.toLegacyObject().subject as { CN?: string | string[] };
  return (Array.isArray(CN) ? CN.at(-1) : CN) ?? "";
}

/** Node separates the names by ", "; a name with such characters is a JSON string. */
const splitNames = (list: string): string[] => list.match(/(?:[^,"]|"(?:[^"\\]|\\.)*")+/g)?.map((s) => s.trim()) ?? [];

const unquote = (name: string): string => (name.startsWith('"') ? (JSON.parse(name) as string) : name);

/** An IPv6 address in its short form; an IPv4 address unchanged. */
function shortAddress(address: string): string {
  const plain = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i.exec(address)?.[1] ?? address;
  return isIPv6(plain) ? new SocketAddress({ address: plain, family: "ipv6" }).address : plain;
}

/** Whether the certificate has one of the allowed names; without such names, every certificate does. */
export function isAllowed(
  certificate: X509Certificate,
  allowedCns: readonly string[],
  allowedHostnames: readonly string[],
): boolean {
  if (allowedCns.length > 0) return allowedCns.includes(commonNameOf(certificate));
  return allowedHostnames.length === 0 || allowedHostnames.some((name) => isFor(certificate, name));
}

/** Whether the subject alternative names include this host, by Go's rules; the common name is ignored. */
function isFor(certificate: X509Certificate, host: string): boolean {
  const { dnsNames, ipAddresses } = namesOf(certificate);
  const address = host.replace(/^\[(.*)\]$/, "$1");
  if (isIP(address) !== 0) return ipAddresses.includes(shortAddress(address));
  return dnsNames.some((name) => matchesHost(name.toLowerCase(), host.toLowerCase().replace(/\.$/, "")));
}

/** A first label `*` stands for any single label. */
function matchesHost(pattern: string, host: string): boolean {
  const labels = host.split(".");
  const wanted = pattern.split(".");
  if (labels.length !== wanted.length || labels.includes("")) return false;
  return wanted.every((label, i) => label === labels[i] || (i === 0 && label === "*"));
}

/**
 * Why a client with this certificate and address is refused; undefined when it is accepted. A certificate without names
 * is valid anywhere; one with IP addresses, only at those; one with DNS names, where one of them resolves to the
 * address or the address resolves to one of them.
 */
export async function sanProblem(
  certificate: X509Certificate,
  remoteAddress: string,
  lookup: NameLookup,
): Promise<string | undefined> {
  const { dnsNames, ipAddresses } = namesOf(certificate);
  if (dnsNames.length === 0 && ipAddresses.length === 0) return undefined;
  const address = shortAddress(remoteAddress);
  if (isIP(address) === 0) return `address ${address}: missing port in address`;
  if (ipAddresses.includes(address)) return undefined;
  if (dnsNames.length === 0) return `x509: certificate is valid for ${ipAddresses.join(", ")}, not ${address}`;
  const found = await leadsTo(dnsNames, address, lookup);
  if (found === true) return undefined;
  const why = found === false ? "" : ` (${found})`;
  return `tls: ${quote(address)} does not match any of DNSNames [${dnsNames.map((name) => quote(name)).join(" ")}]${why}`;
}

/** Names of one certificate that are looked up, sequentially. */
const LOOKUPS_MAX = 64;

/** True, false, or false with the last error of the name service. */
async function leadsTo(dnsNames: readonly string[], address: string, lookup: NameLookup): Promise<boolean | string> {
  const wildcards = dnsNames.filter((name) => name.startsWith("*.")).map((name) => name.slice(1));
  const names = dnsNames.filter((name) => !name.startsWith("*."));
  let problem: false | string = false;
  try {
    const own = (await lookup.reverse(address)).map((name) => name.replace(/\.$/, ""));
    if (own.some((name) => names.includes(name) || wildcards.some((end) => name.endsWith(end)))) return true;
  } catch (error) {
    problem = (error as Error).message;
  }
  for (const name of names.slice(0, LOOKUPS_MAX)) {
    try {
      if ((await lookup.forward(name)).map(shortAddress).includes(address)) return true;
    } catch (error) {
      problem = (error as Error).message;
    }
  }
  return problem;
}
