import type { TLSSocket } from "node:tls";

/** Why a handshake failed, with Go's text if there is one. "EOF": the client left during the handshake. */
export function handshakeProblem(error: NodeJS.ErrnoException, socket: TLSSocket): string {
  // An untrusted certificate ends the connection without an error of its own.
  const untrusted = socket.authorizationError as unknown as string | undefined;
  if (untrusted !== undefined && untrusted !== null && error.code === "ECONNRESET") {
    return `tls: failed to verify certificate: ${VERIFICATION[untrusted] ?? `x509: ${untrusted}`}`;
  }
  if (error.code === "ECONNRESET") return "EOF";
  return HANDSHAKE[error.code ?? ""] ?? remoteAlert(error.code ?? "") ?? error.message;
}

/** Why a handshake begun by this end failed, with Go's text; undefined if there is none. */
export function outgoingHandshakeProblem({ code = "" }: NodeJS.ErrnoException): string | undefined {
  const untrusted = VERIFICATION[code];
  if (untrusted !== undefined) return `tls: failed to verify certificate: ${untrusted}`;
  if (code === "ERR_SSL_WRONG_VERSION_NUMBER") return NOT_TLS;
  return remoteAlert(code);
}

const UNKNOWN_AUTHORITY = "x509: certificate signed by unknown authority";

/** OpenSSL's verdicts on a chain. */
const VERIFICATION: Readonly<Record<string, string>> = {
  UNABLE_TO_GET_ISSUER_CERT: UNKNOWN_AUTHORITY,
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: UNKNOWN_AUTHORITY,
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: UNKNOWN_AUTHORITY,
  DEPTH_ZERO_SELF_SIGNED_CERT: UNKNOWN_AUTHORITY,
  SELF_SIGNED_CERT_IN_CHAIN: UNKNOWN_AUTHORITY,
  CERT_SIGNATURE_FAILURE: UNKNOWN_AUTHORITY,
  CERT_HAS_EXPIRED: "x509: certificate has expired or is not yet valid",
  CERT_NOT_YET_VALID: "x509: certificate has expired or is not yet valid",
  INVALID_PURPOSE: "x509: certificate specifies an incompatible key usage",
};

const NOT_TLS = "tls: first record does not look like a TLS handshake";

const HANDSHAKE: Readonly<Record<string, string>> = {
  ERR_SSL_PEER_DID_NOT_RETURN_A_CERTIFICATE: "tls: client didn't provide a certificate",
  ERR_SSL_HTTP_REQUEST: NOT_TLS,
  ERR_SSL_WRONG_VERSION_NUMBER: NOT_TLS,
  ERR_SSL_PACKET_LENGTH_TOO_LONG: NOT_TLS,
  ERR_SSL_NO_SHARED_CIPHER: "tls: no cipher suite supported by both client and server",
  ERR_SSL_UNSUPPORTED_PROTOCOL: "tls: client offered only unsupported versions",
  ERR_SSL_NO_APPLICATION_PROTOCOL: "tls: client requested unsupported application protocols",
  ERR_TLS_HANDSHAKE_TIMEOUT: "tls: handshake did not end within 10s: i/o timeout",
};

/** The alert a client sent before it left, such as `ERR_SSL_TLSV1_ALERT_UNKNOWN_CA`. */
function remoteAlert(code: string): string | undefined {
  const alert = /^ERR_SSL_(?:TLSV1|TLSV13|SSLV3)_ALERT_(\w+)$/.exec(code)?.[1];
  if (alert === undefined) return undefined;
  return `remote error: tls: ${ALERTS[alert] ?? alert.toLowerCase().replaceAll("_", " ")}`;
}

const ALERTS: Readonly<Record<string, string>> = {
  UNKNOWN_CA: "unknown certificate authority",
  CERTIFICATE_EXPIRED: "expired certificate",
  CERTIFICATE_REVOKED: "revoked certificate",
  CERTIFICATE_UNKNOWN: "unknown certificate",
};
