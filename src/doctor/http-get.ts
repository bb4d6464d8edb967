/** One HTTP request to a member: its answer, when it came, and the certificate that the member presented. */
import type { IncomingMessage } from "node:http";
import { TLSSocket } from "node:tls";
import type { Clock } from "../base/clock.ts";
import { parseEndpoint } from "../client/endpoint.ts";
import type { TlsOptions } from "../client/raw.ts";

export interface HttpAnswer {
  readonly status: number;
  readonly body: string;
  /** Of the header Date, in whole seconds; undefined without one. */
  readonly dateMs: number | undefined;
  /** Wall-clock times here before the request was sent and after the answer's header arrived. */
  readonly sentMs: number;
  readonly receivedMs: number;
  readonly certificate: { readonly validFromMs: number; readonly validToMs: number } | undefined;
}

const BODY_BYTES_MAX = 16 * 1024 * 1024;

/** Rejects when there is no answer within `timeoutMs`. Certificates are not verified: that is examined elsewhere. */
export async function httpGet(
  endpoint: string,
  path: string,
  tls: TlsOptions | undefined,
  timeoutMs: number,
  clock: Clock,
): Promise<HttpAnswer> {
  const address = parseEndpoint(endpoint);
  const { get } = tls === undefined ? await import("node:http") : await import("node:https");
  const pem = (bytes: Uint8Array | undefined) => (bytes === undefined ? undefined : Buffer.from(bytes));
  const where = address.path === undefined ? { host: address.host, port: address.port } : { socketPath: address.path };
  const secure = { cert: pem(tls?.cert), key: pem(tls?.key), rejectUnauthorized: false };
  return new Promise((resolve, reject) => {
    let sentMs = clock.wallMs();
    const options = { ...where, path, agent: false, timeout: timeoutMs, ...(tls === undefined ? {} : secure) };
    const request = get(options, (response) => {
      const receivedMs = clock.wallMs();
      const certificate = tls === undefined ? undefined : datesOf(response);
      readBody(response)
        .then((body) => {
          const dateMs = Date.parse(response.headers.date ?? "");
          resolve({
            status: response.statusCode ?? 0,
            body,
            dateMs: Number.isNaN(dateMs) ? undefined : dateMs,
            sentMs,
            receivedMs,
            certificate,
          });
        })
        .catch(reject);
    });
    request.once("socket", (socket) => {
      // The member reads its clock after the handshakes.
      socket.once(tls === undefined ? "connect" : "secureConnect", () => (sentMs = clock.wallMs()));
    });
    request.on("timeout", () => request.destroy(new Error(`no answer within ${timeoutMs} ms`)));
    request.on("error", reject);
  });
}

function datesOf(response: IncomingMessage): HttpAnswer["certificate"] {
  if (!(response.socket instanceof TLSSocket)) return undefined;
  const { valid_from, valid_to } = response.socket.getPeerCertificate();
  const dates = { validFromMs: Date.parse(valid_from), validToMs: Date.parse(valid_to) };
  return Number.isNaN(dates.validFromMs) || Number.isNaN(dates.validToMs) ? undefined : dates;
}

async function readBody(response: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  const body: AsyncIterable<Buffer> = response;
  for await (const chunk of body) {
    bytes += chunk.length;
    if (bytes > BODY_BYTES_MAX) throw new Error(`the answer is longer than ${BODY_BYTES_MAX} bytes`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString();
}
