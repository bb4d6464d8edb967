/**
 * Header fields in HPACK form: immutable, checked once at creation, then shared by every request that refers to them.
 * Owns the static table (RFC 7541, appendix A) and the rules on names and values (RFC 9113, 8.2).
 */

/** How the server treats a field; determined by its name. */
export const Kind = {
  other: 0,
  method: 1,
  path: 2,
  scheme: 3,
  authority: 4,
  /** A pseudo-header that a request must not have. */
  foreignPseudo: 5,
  contentType: 6,
  te: 7,
  grpcTimeout: 8,
  grpcEncoding: 9,
  contentLength: 10,
  /** HTTP/1 connection fields, which make an HTTP/2 message malformed. */
  connectionSpecific: 11,
  host: 12,
  /** Name ends in `-bin`: the value is base64. */
  binary: 13,
} as const;

const kinds = new Map<string, number>([
  [":method", Kind.method],
  [":path", Kind.path],
  [":scheme", Kind.scheme],
  [":authority", Kind.authority],
  ["content-type", Kind.contentType],
  ["te", Kind.te],
  ["grpc-timeout", Kind.grpcTimeout],
  ["grpc-encoding", Kind.grpcEncoding],
  ["content-length", Kind.contentLength],
  ["connection", Kind.connectionSpecific],
  ["keep-alive", Kind.connectionSpecific],
  ["proxy-connection", Kind.connectionSpecific],
  ["transfer-encoding", Kind.connectionSpecific],
  ["upgrade", Kind.connectionSpecific],
  ["host", Kind.host],
]);

/** Overhead of a field in tables and limits, beyond its name and value (RFC 7541, 4.1). */
const FIELD_OVERHEAD = 32;

export class HeaderField {
  readonly name: string;
  /** One character per byte. */
  readonly value: string;
  readonly size: number;
  readonly kind: number;
  /** False when name or value holds a byte that HTTP/2 forbids there. */
  readonly valid: boolean;

  constructor(name: string, value: string, of?: HeaderField) {
    this.name = name;
    this.value = value;
    this.size = name.length + value.length + FIELD_OVERHEAD;
    // A field that takes its name from another also takes the properties of the name.
    this.kind = of === undefined ? kindOf(name) : of.kind;
    this.valid = (of === undefined ? validName(name) : of.nameValid) && validValue(value);
    this.nameValid = of === undefined ? this.valid || validName(name) : of.nameValid;
  }

  readonly nameValid: boolean;
}

function kindOf(name: string): number {
  const kind = kinds.get(name);
  if (kind !== undefined) return kind;
  if (name.charCodeAt(0) === 0x3a) return Kind.foreignPseudo;
  return name.endsWith("-bin") ? Kind.binary : Kind.other;
}

/** A lower-case token; a pseudo-header's colon is accepted, because its name is checked by kind. */
function validName(name: string): boolean {
  const { length } = name;
  let i = name.charCodeAt(0) === 0x3a ? 1 : 0;
  if (i === length) return false;
  for (; i < length; i++) if (tokenChars[name.charCodeAt(i)] !== 1) return false;
  return true;
}

/**
 * RFC 9113 forbids NUL, CR and LF. It also forbids leading and trailing white space, which grpc-go and this server
 * accept.
 */
function validValue(value: string): boolean {
  const { length } = value;
  for (let i = 0; i < length; i++) {
    const char = value.charCodeAt(i);
    if (char === 0 || char === 10 || char === 13) return false;
  }
  return true;
}

const tokenChars = new Uint8Array(256);
for (const char of "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz") tokenChars[char.charCodeAt(0)] = 1;

/** Entry 1 is at index 1. */
export const STATIC_TABLE: readonly (HeaderField | undefined)[] = [
  undefined,
  ...[
    ":authority",
    ":method GET",
    ":method POST",
    ":path /",
    ":path /index.html",
    ":scheme http",
    ":scheme https",
    ":status 200",
    ":status 204",
    ":status 206",
    ":status 304",
    ":status 400",
    ":status 404",
    ":status 500",
    "accept-charset",
    "accept-encoding gzip, deflate",
    "accept-language",
    "accept-ranges",
    "accept",
    "access-control-allow-origin",
    "age",
    "allow",
    "authorization",
    "cache-control",
    "content-disposition",
    "content-encoding",
    "content-language",
    "content-length",
    "content-location",
    "content-range",
    "content-type",
    "cookie",
    "date",
    "etag",
    "expect",
    "expires",
    "from",
    "host",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "last-modified",
    "link",
    "location",
    "max-forwards",
    "proxy-authenticate",
    "proxy-authorization",
    "range",
    "referer",
    "refresh",
    "retry-after",
    "server",
    "set-cookie",
    "strict-transport-security",
    "transfer-encoding",
    "user-agent",
    "vary",
    "via",
    "www-authenticate",
  ].map((line) => {
    const space = line.indexOf(" ");
    return space < 0 ? new HeaderField(line, "") : new HeaderField(line.slice(0, space), line.slice(space + 1));
  }),
];
