/** A handshake with an endpoint as a client makes it: the certificates that the server shows, and why it fails if it does. */
import { X509Certificate } from "node:crypto";
import { isIP } from "node:net";
import { connect, type PeerCertificate } from "node:tls";
import type { Clock } from "../../base/clock.ts";
import { parseEndpoint } from "../../client/endpoint.ts";
import { findTrouble } from "../../client/probe.ts";
import type { TlsOptions } from "../../client/raw.ts";
import type { Trouble } from "../../client/trouble.ts";

export interface Handshake {
  readonly endpoint: string;
  /** The server's own certificate; undefined when it shows none to this client. */
  readonly certificate: X509Certificate | undefined;
  readonly trouble: Trouble | undefined;
  /** What to do about the trouble, where that is known. */
  readonly advice: string | undefined;
}

/** Does not throw: what goes wrong is the result. */
export async function shakeHands(
  endpoint: string,
  tls: TlsOptions,
  timeoutMs: number,
  clock: Clock,
): Promise<Handshake> {
  const trouble = await findTrouble(endpoint, tls, timeoutMs, clock);
  const certificate = await shownBy(endpoint, tls, timeoutMs);
  return { endpoint, certificate, trouble, advice: trouble && adviceFor(trouble, certificate, tls) };
}

function adviceFor(trouble: Trouble, certificate: X509Certificate | undefined, tls: TlsOptions): string | undefined {
  switch (trouble.kind) {
    case "authority": {
      const issuer =
        certificate === undefined ? "" : `: it was signed by "${certificate.issuer.replaceAll("\n", ", ")}"`;
      return `give the authority of the server's certificate with --cacert${issuer}`;
    }
    case "client-certificate":
    case "closed-without-certificate":
      return "the server wants a client certificate: give one with --cert and --key";
    case "client-authority":
    case "closed-on-certificate":
      return "the server does not trust the authority of the certificate given with --cert: it trusts --trusted-ca-file";
    case "speaks-plain":
      return "the server speaks no TLS: use http://, or give it --cert-file and --key-file";
    case "speaks-tls":
      return "the server speaks TLS: use https://";
    default:
  }
  if (/expired or is not yet valid/.test(trouble.text))
    return "compare the clocks of both hosts; when they agree, renew the certificate (kvorum cert make)";
  if (/valid for|doesn't contain any IP SANs|not valid for any names|legacy Common Name/.test(trouble.text))
    return "make a certificate that names this address (kvorum cert make --member), or connect by a name that it has";
  if (/incompatible key usage/.test(trouble.text))
    return "give the server a certificate for servers: its extended key usage needs serverAuth";
  if (/bad certificate|revoked/.test(trouble.text))
    return "the server refused the client's certificate: it is revoked, expired, or not for use by clients";
  if (/connection refused/.test(trouble.text))
    return "nothing listens there: is the member running, and is this its port?";
  if (/handshake failure|protocol version/.test(trouble.text))
    return "no common version or cipher: compare --cipher-suites, --tls-min-version and --tls-max-version of the server";
  return tls.cert === undefined ? "if the server has --client-cert-auth, give --cert and --key" : undefined;
}

async function shownBy(endpoint: string, tls: TlsOptions, timeoutMs: number): Promise<X509Certificate | undefined> {
  let address: ReturnType<typeof parseEndpoint>;
  try {
    address = parseEndpoint(endpoint);
  } catch {
    return undefined;
  }
  const { host, port, path } = address;
  const { cert, key } = tls;
  return new Promise((resolve) => {
    const socket = connect({
      ...(path === undefined ? { host, port } : { path }),
      ...(cert === undefined || key === undefined ? {} : { cert: Buffer.from(cert), key: Buffer.from(key) }),
      ...(isIP(host) === 0 ? { servername: host } : {}),
      ALPNProtocols: ["h2"],
      // It is only looked at. The probe has judged it.
      rejectUnauthorized: false,
    });
    const end = (shown: PeerCertificate | undefined) => {
      socket.destroy();
      resolve(shown?.raw === undefined ? undefined : new X509Certificate(shown.raw));
    };
    socket.setTimeout(timeoutMs, () => end(undefined));
    socket.once("secureConnect", () => end(socket.getPeerCertificate()));
    socket.once("error", () => end(undefined));
  });
}
