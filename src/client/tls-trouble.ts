/** Failures of TLS handshakes, in the words of Go's crypto/tls and crypto/x509, which etcd's users know. */
import { isIP } from "node:net";
import { checkServerIdentity, type DetailedPeerCertificate, type PeerCertificate, type TLSSocket } from "node:tls";
import type { Trouble } from "./trouble.ts";

/** Why the server's certificate is not trusted for `host`; undefined if it is. */
export function certificateTrouble(socket: TLSSocket, host: string, nowMs: number): Trouble | undefined {
  const certificate = socket.getPeerCertificate();
  const code = socket.authorizationError as unknown as string | Error | null;
  const problem = code ? chainProblem(typeof code === "string" ? code : code.message, certificate, nowMs) : undefined;
  const named = problem ?? (checkServerIdentity(host, certificate) ? nameProblem(host, certificate) : undefined);
  if (named === undefined) return undefined;
  const kind = /unknown authority/.test(named) ? ("authority" as const) : undefined;
  return { text: `tls: failed to verify certificate: x509: ${named}`, lasting: true, kind };
}

function chainProblem(code: string, certificate: PeerCertificate, nowMs: number): string | undefined {
  switch (code) {
    case "ERR_TLS_CERT_ALTNAME_INVALID":
      // The name is checked separately, whether or not the chain is valid.
      return undefined;
    case "CERT_HAS_EXPIRED":
    case "CERT_NOT_YET_VALID": {
      const [limit, order] =
        code === "CERT_HAS_EXPIRED" ? [certificate.valid_to, "after"] : [certificate.valid_from, "before"];
      const span = `current time ${seconds(nowMs)} is ${order} ${seconds(Date.parse(limit))}`;
      return `certificate has expired or is not yet valid: ${span}`;
    }
    case "UNABLE_TO_GET_ISSUER_CERT":
    case "UNABLE_TO_GET_ISSUER_CERT_LOCALLY":
    case "UNABLE_TO_VERIFY_LEAF_SIGNATURE":
    case "SELF_SIGNED_CERT_IN_CHAIN":
    case "DEPTH_ZERO_SELF_SIGNED_CERT":
      return "certificate signed by unknown authority";
    case "INVALID_PURPOSE":
      return "certificate specifies an incompatible key usage";
    default:
      return `certificate is not accepted: ${code}`;
  }
}

/** RFC 3339 without the fraction. */
const seconds = (ms: number) =>
  Number.isNaN(ms) ? "an unknown time" : new Date(ms).toISOString().replace(/\.\d+/, "");

function nameProblem(host: string, certificate: PeerCertificate | DetailedPeerCertificate): string {
  const names = certificate.subjectaltname?.split(", ") ?? [];
  if (names.length === 0) return "certificate relies on legacy Common Name field, use SANs instead";
  const kind = isIP(host) === 0 ? "DNS:" : "IP Address:";
  const valid = names.filter((name) => name.startsWith(kind)).map((name) => name.slice(kind.length));
  if (valid.length > 0) return `certificate is valid for ${valid.join(", ")}, not ${host}`;
  if (isIP(host) !== 0) return `cannot validate certificate for ${host} because it doesn't contain any IP SANs`;
  return `certificate is not valid for any names, but wanted to match ${host}`;
}

/** Alerts by OpenSSL's names, with those after which a retry fails too. */
const ALERTS: readonly (readonly [RegExp, string, Trouble["kind"]?])[] = [
  [/CERTIFICATE_REQUIRED/, "certificate required", "client-certificate"],
  [/UNKNOWN_CA$/, "unknown certificate authority", "client-authority"],
  [/BAD_CERTIFICATE/, "bad certificate"],
  [/CERTIFICATE_EXPIRED/, "expired certificate"],
  [/CERTIFICATE_REVOKED/, "revoked certificate"],
  [/CERTIFICATE_UNKNOWN/, "unknown certificate"],
  [/UNSUPPORTED_CERTIFICATE/, "unsupported certificate"],
  [/ACCESS_DENIED/, "access denied"],
  [/HANDSHAKE_FAILURE/, "handshake failure"],
  [/PROTOCOL_VERSION/, "protocol version not supported"],
  [/INSUFFICIENT_SECURITY/, "insufficient security level"],
  [/UNRECOGNIZED_NAME/, "unrecognized name"],
  [/NO_APPLICATION_PROTOCOL/, "no application protocol"],
];

/** The alert sent by the other side; undefined for any other error. */
export function alertTrouble(error: NodeJS.ErrnoException, sentCertificate: boolean): Trouble | undefined {
  if (!error.code?.startsWith("ERR_SSL_") || !error.code.includes("ALERT")) return undefined;
  for (const [pattern, text, kind] of ALERTS) {
    if (!pattern.test(error.code)) continue;
    const judged = pattern.test("BAD_CERTIFICATE") || pattern.test("CERTIFICATE_REVOKED");
    // Older servers report a missing certificate as bad. One that was sent may be refused by a list that changes.
    const missing = judged && !sentCertificate;
    const told = missing ? "client-certificate" : kind;
    return { text: `remote error: tls: ${text}`, lasting: missing || !judged, kind: told };
  }
  return { text: `remote error: tls: ${error.code.replace(/^.*ALERT_/, "").toLowerCase()}`, lasting: false };
}
