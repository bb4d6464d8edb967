/** AWS Signature Version 4 of a request, in its headers. Pure. Source: AWS, "Signature Version 4 signing process". */
import { createHash, createHmac } from "node:crypto";

export interface Credentials {
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
  /** Of temporary credentials. */
  readonly sessionToken: string | undefined;
}

export interface Signable {
  readonly method: string;
  /** Encoded, as it is sent. */
  readonly path: string;
  readonly query: readonly (readonly [name: string, value: string])[];
  /** Names in lower case, `host` among them. All are signed. */
  readonly headers: Readonly<Record<string, string>>;
  /** SHA-256 of the body in hexadecimal digits. */
  readonly bodySha256: string;
}

const ALGORITHM = "AWS4-HMAC-SHA256";

/** All headers of the request, with those of the signature. */
export function signed(
  { method, path, query, headers, bodySha256 }: Signable,
  { accessKeyId, secretAccessKey, sessionToken }: Credentials,
  region: string,
  wallMs: number,
): Record<string, string> {
  const time = new Date(wallMs).toISOString().replace(/[-:]|\.\d+/g, "");
  const day = time.slice(0, 8);
  const all: Record<string, string> = {
    ...headers,
    "x-amz-content-sha256": bodySha256,
    "x-amz-date": time,
    ...(sessionToken === undefined ? {} : { "x-amz-security-token": sessionToken }),
  };
  const names = Object.keys(all).sort();
  const canonical = [
    method,
    path,
    queryText(query),
    ...names.map((name) => `${name}:${all[name]!.trim()}`),
    "",
    names.join(";"),
    bodySha256,
  ].join("\n");
  const scope = `${day}/${region}/s3/aws4_request`;
  const text = [ALGORITHM, time, scope, sha256(canonical)].join("\n");
  const key = [day, region, "s3", "aws4_request"].reduce<Buffer | string>(
    (before, part) => createHmac("sha256", before).update(part).digest(),
    `AWS4${secretAccessKey}`,
  );
  const signature = createHmac("sha256", key).update(text).digest("hex");
  const authorization = `${ALGORITHM} Credential=${accessKeyId}/${scope},SignedHeaders=${names.join(";")},Signature=${signature}`;
  return { ...all, authorization };
}

/** In the order that the signature needs. */
export function queryText(query: Signable["query"]): string {
  return query
    .map(([name, value]) => `${uriEncoded(name)}=${uriEncoded(value)}`)
    .sort()
    .join("&");
}

/** All but letters, digits and `-._~`; for a path, each part of its own. */
export function uriEncoded(text: string): string {
  return encodeURIComponent(text).replace(/[!'()*]/g, (char) => `%${char.charCodeAt(0).toString(16).toUpperCase()}`);
}

export const sha256 = (bytes: string | Uint8Array): string => createHash("sha256").update(bytes).digest("hex");
