/**
 * Requests to an S3-compatible service: signed, repeated while the service is in trouble, and their errors in words. Path
 * style, so that no name of a bucket need be in DNS.
 */
import { request as httpRequest, type IncomingMessage } from "node:http";
import { request as httpsRequest } from "node:https";
import type { Clock } from "../../base/clock.ts";
import { messageOf } from "../../base/errors.ts";
import { BackupError } from "../error.ts";
import { type Credentials, queryText, sha256, signed, uriEncoded } from "./sigv4.ts";

export interface S3Settings {
  /** As users write the store, for messages. */
  readonly url: string;
  readonly endpoint: URL;
  readonly region: string;
  readonly bucket: string;
  /** PEM of the CAs to trust besides the system's. */
  readonly ca: Buffer | undefined;
  /** Asked for each request, because temporary ones are renewed. */
  readonly credentials: () => Credentials;
  readonly clock: Clock;
}

export interface S3Call {
  readonly method: "GET" | "PUT" | "POST" | "DELETE";
  /** The object, or empty for the bucket. */
  readonly key: string;
  readonly query?: readonly (readonly [string, string])[];
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: Buffer;
}

const TRIES = 6;
const RETRY_FIRST_MS = 200;
const RETRY_MAX_MS = 5000;
/** Silence after which a connection counts as lost. */
const IDLE_MS = 60_000;
const ANSWER_BYTES_MAX = 8 * 1024 * 1024;
const EMPTY = Buffer.alloc(0);

/** The response's body, not yet read. Throws BackupError. */
export async function s3Response(settings: S3Settings, call: S3Call): Promise<IncomingMessage> {
  for (let tries = 1; ; tries++) {
    let failure: BackupError;
    let mayRetry = true;
    try {
      const response = await send(settings, call);
      const { statusCode = 0 } = response;
      if (statusCode < 300) return response;
      const text = (await bodyOf(response)).toString();
      failure = errorOf(settings, call, statusCode, text);
      mayRetry = statusCode >= 500 || statusCode === 429 || statusCode === 408;
    } catch (error) {
      if (error instanceof BackupError) throw error;
      failure = new BackupError("ERR_BACKUP_STORE", `${settings.url}: ${messageOf(error)}`, { cause: error });
    }
    if (!mayRetry || tries === TRIES) throw failure;
    const pauseMs = Math.min(RETRY_MAX_MS, RETRY_FIRST_MS * 2 ** (tries - 1));
    await new Promise<void>((resolve) => settings.clock.after(pauseMs, resolve));
  }
}

/** The whole answer of a call that has a small one. Throws BackupError. */
export async function s3Text(settings: S3Settings, call: S3Call): Promise<{ text: string; etag: string }> {
  const response = await s3Response(settings, call);
  try {
    return { text: (await bodyOf(response)).toString(), etag: response.headers.etag ?? "" };
  } catch (error) {
    throw new BackupError("ERR_BACKUP_STORE", `${settings.url}: ${messageOf(error)}`, { cause: error });
  }
}

function send(settings: S3Settings, call: S3Call): Promise<IncomingMessage> {
  const { endpoint, region, bucket, ca, credentials, clock } = settings;
  const { method, key, query = [], headers = {}, body = EMPTY } = call;
  const base = endpoint.pathname.replace(/\/$/, "");
  const path = [base, bucket, ...(key === "" ? [] : key.split("/"))].map((part, i) =>
    i === 0 ? part : uriEncoded(part),
  );
  const signable = {
    method,
    path: path.join("/"),
    query,
    headers: { ...headers, host: endpoint.host },
    bodySha256: sha256(body),
  };
  const all = signed(signable, credentials(), region, clock.wallMs());
  const text = queryText(query);
  const options = {
    method,
    hostname: endpoint.hostname.replace(/^\[(.*)\]$/, "$1"),
    ...(endpoint.port === "" ? {} : { port: Number(endpoint.port) }),
    path: `${signable.path}${text === "" ? "" : `?${text}`}`,
    headers: { ...all, "content-length": `${body.length}` },
    timeout: IDLE_MS,
    ...(ca === undefined ? {} : { ca }),
  };
  return new Promise((resolve, reject) => {
    const request = (endpoint.protocol === "https:" ? httpsRequest : httpRequest)(options, resolve);
    request.on("timeout", () => request.destroy(new Error(`no answer within ${IDLE_MS / 1000} s`)));
    request.on("error", reject);
    request.end(body);
  });
}

async function bodyOf(response: IncomingMessage): Promise<Buffer> {
  const parts: Buffer[] = [];
  let total = 0;
  for await (const part of response) {
    total += part.length;
    if (total > ANSWER_BYTES_MAX) throw new Error("the answer is too long");
    parts.push(part);
  }
  return Buffer.concat(parts);
}

function errorOf({ url }: S3Settings, { method, key }: S3Call, status: number, text: string): BackupError {
  const code = xmlText(text, "Code");
  if (status === 404 && (code === "NoSuchKey" || (code === undefined && method === "GET"))) {
    return new BackupError("ERR_BACKUP_NO_OBJECT", `${key.split("/").at(-1)} is missing`);
  }
  if (status === 412 || (status === 409 && code === "ConditionalRequestConflict")) {
    const name = key.split("/").at(-1);
    return new BackupError("ERR_BACKUP_CONFLICT", `${name} exists: does another backup write into ${url}?`);
  }
  const what = [code, xmlText(text, "Message")].filter((part) => part !== undefined).join(": ");
  return new BackupError("ERR_BACKUP_STORE", `${url}: ${method} ${key} was refused with ${status} ${what}`.trim());
}

/** The text of the first element of a name. */
export function xmlText(xml: string, name: string): string | undefined {
  const found = new RegExp(`<${name}>([^<]*)</${name}>`).exec(xml)?.[1];
  return found?.replace(/&(lt|gt|quot|apos|amp|#\d+|#x[0-9a-fA-F]+);/g, (whole, entity: string) => {
    const named = { lt: "<", gt: ">", quot: '"', apos: "'", amp: "&" }[entity];
    if (named !== undefined) return named;
    const number = entity.startsWith("#x") ? Number.parseInt(entity.slice(2), 16) : Number(entity.slice(1));
    return Number.isSafeInteger(number) && number <= 0x10ffff ? String.fromCodePoint(number) : whole;
  });
}
