/** A member's certificate files, read as the member reads them: usable, in time, for its names, from its authority. */
import type { X509Certificate } from "node:crypto";
import type { Config } from "../config/config.ts";
import { isTls, isUnixSocket, type Url } from "../config/values/url.ts";
import { isAllowed, namesOf } from "../rpc/tls/certificate-names.ts";
import { type CertificateAndKey, readAuthorities, readPair } from "../rpc/tls/context.ts";
import { TlsError } from "../rpc/tls/files.ts";
import { certificatesIn, examineDates, validityOf } from "./certificate-dates.ts";
import type { Finding } from "./finding.ts";

const SERVER_AUTH = "1.3.6.1.5.5.7.3.1";
const CLIENT_AUTH = "1.3.6.1.5.5.7.3.2";
const CHAIN_MAX = 8;

interface Side {
  readonly prefix: "" | "peer-";
  readonly tls: Config["clientTls"] | Config["peerTls"];
  readonly advertised: readonly Url[];
  readonly listened: readonly Url[];
  /** Expected instead of the hosts of the advertised URLs. */
  readonly serverName: string;
}

export function examineCertificateFiles(config: Config, nowMs: number): Finding[] {
  const { clientTls, peerTls, advertiseClientUrls, advertisePeerUrls, listenClientUrls, listenPeerUrls } = config;
  const sides: readonly Side[] = [
    { prefix: "", tls: clientTls, advertised: advertiseClientUrls, listened: listenClientUrls, serverName: "" },
    {
      prefix: "peer-",
      tls: peerTls,
      advertised: advertisePeerUrls,
      listened: listenPeerUrls,
      serverName: config.peerServerName,
    },
  ];
  return sides.flatMap((side) => examineSide(side, nowMs));
}

const finding = (code: string, text: string, next: readonly string[]): Finding => ({
  severity: "problem",
  code,
  subject: "certificates",
  text,
  next,
});

function examineSide(side: Side, nowMs: number): Finding[] {
  const { certFile, keyFile, clientCertFile, clientKeyFile, trustedCaFile } = side.tls;
  const { prefix } = side;
  const isUsed = side.listened.some(isTls);
  if (certFile === "" && keyFile === "") return [];
  if (!isUsed) {
    const text = `--${prefix}cert-file is given, but no --listen-${prefix === "" ? "client" : "peer"}-urls begins with https: the member serves without TLS`;
    return [
      {
        ...finding("certificate-unused", text, ["write https:// in the URLs, or leave the file away"]),
        severity: "warning",
      },
    ];
  }
  const found: Finding[] = [];
  const pair = readOr(found, () => readPair(certFile, keyFile, `--${prefix}cert-file`, `--${prefix}key-file`));
  const authorities = trustedCaFile === "" ? undefined : readOr(found, () => readAuthorities(trustedCaFile, prefix));
  const client =
    clientCertFile === ""
      ? pair
      : readOr(found, () =>
          readPair(clientCertFile, clientKeyFile, `--${prefix}client-cert-file`, `--${prefix}client-key-file`),
        );
  if (pair !== undefined) {
    found.push(...examinePair(pair, certFile, side, nowMs));
    found.push(...examineUsage(pair.leaf, certFile, SERVER_AUTH, "a server"));
  }
  if (client !== undefined && prefix === "peer-") {
    const file = clientCertFile === "" ? certFile : clientCertFile;
    found.push(...examineUsage(client.leaf, file, CLIENT_AUTH, "a client, as which members connect to each other"));
  }
  if (authorities !== undefined) {
    const certificates = certificatesIn(authorities);
    for (const one of certificates) {
      found.push(
        ...examineDates(
          `the authority ${one.subject.replaceAll("\n", ", ")} in ${trustedCaFile}`,
          "nothing that it signed is accepted",
          validityOf(one),
          nowMs,
        ),
      );
    }
    if (pair !== undefined && prefix === "peer-" && !isSignedBy(pair, certificates)) {
      found.push(
        finding(
          "certificate-authority",
          `${certFile} is not signed by an authority in --${prefix}trusted-ca-file=${trustedCaFile}: the other members, with the same authority, refuse it`,
          ["issue it from the cluster's authority, or give the file of the one that signed it, on all members"],
        ),
      );
    }
  }
  return found;
}

/** Undefined, with a finding, when a file is unusable. */
function readOr<T>(found: Finding[], read: () => T): T | undefined {
  try {
    return read();
  } catch (error) {
    if (!(error instanceof TlsError)) throw error;
    const code = /does not match/.test(error.message) ? "certificate-key-mismatch" : "certificate-unreadable";
    found.push(finding(code, error.message, ["the member does not start until this is corrected"]));
    return undefined;
  }
}

function examinePair({ leaf }: CertificateAndKey, file: string, side: Side, nowMs: number): Finding[] {
  const found = examineDates(
    file,
    side.prefix === "" ? "clients refuse it" : "the other members refuse it",
    validityOf(leaf),
    nowMs,
  );
  const urls = side.advertised.filter((url) => isTls(url) && !isUnixSocket(url));
  const hosts = side.serverName === "" ? urls.map(({ hostname }) => hostname) : [side.serverName];
  const missing = [...new Set(hosts)].filter((host) => !isAllowed(leaf, [], [host]));
  if (missing.length > 0) {
    const { dnsNames, ipAddresses } = namesOf(leaf);
    const names = [...dnsNames, ...ipAddresses].join(", ") || "no name at all (the common name does not count)";
    const where = side.prefix === "" ? "--advertise-client-urls" : "--initial-advertise-peer-urls";
    const text = `${file} is valid for ${names}, not for ${missing.join(", ")}, which ${where} names`;
    found.push(
      finding("certificate-names", text, [
        "issue it with these among its subject alternative names",
        `or advertise a name that it has (${where})`,
      ]),
    );
  }
  return found;
}

/** Without extended key usages a certificate serves for all. */
function examineUsage(leaf: X509Certificate, file: string, usage: string, what: string): Finding[] {
  const usages: readonly string[] | undefined = leaf.keyUsage;
  if (usages === undefined || usages.length === 0 || usages.includes(usage)) return [];
  const text = `${file} may not be used by ${what}: its extended key usage lacks it`;
  return [finding("certificate-usage", text, ["issue it with the extended key usages serverAuth and clientAuth"])];
}

function isSignedBy({ cert, leaf }: CertificateAndKey, authorities: readonly X509Certificate[]): boolean {
  const chain = certificatesIn(cert);
  const isIssuer = (issuer: X509Certificate, of: X509Certificate) =>
    of.checkIssued(issuer) && of.verify(issuer.publicKey);
  let current: X509Certificate | undefined = leaf;
  for (let depth = 0; depth < CHAIN_MAX && current !== undefined; depth++) {
    const below: X509Certificate = current;
    if (authorities.some((authority) => isIssuer(authority, below))) return true;
    current = chain.find((one) => one !== below && one.fingerprint256 !== below.fingerprint256 && isIssuer(one, below));
  }
  return false;
}
