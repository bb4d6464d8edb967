/**
 * The head of a request: its header fields, checked and interpreted once. Equal heads of one connection share one
 * object, so it holds nothing specific to a request. Pure.
 */
import { Code } from "../base/grpc-codes.ts";
import { type HeaderField, Kind } from "./hpack/fields.ts";
import { base64ErrorAt, parseTimeout, quote } from "./status.ts";

export interface Refusal {
  readonly httpStatus: number;
  readonly code: number;
  readonly message: string;
}

export class RequestHead<Route> {
  readonly fields: readonly HeaderField[];
  method = "";
  path = "";
  scheme = "";
  authority = "";
  contentType = "";
  /** Content type of the reply: that of the request, as grpc-go echoes its suffix. */
  replyContentType = "application/grpc";
  isGrpc = false;
  /** The registered route of the path; undefined for an unknown method and for plain HTTP. */
  route: Route | undefined = undefined;
  timeoutMs = Infinity;
  /** `grpc-encoding`; empty when messages are not compressed. */
  encoding = "";
  /** -1 when absent. */
  contentLength = -1;
  /** Why the request is malformed under HTTP/2; empty when it is not. */
  malformed = "";
  /** Why the call cannot start although the request is well-formed. */
  refusal: Refusal | undefined = undefined;

  constructor(fields: readonly HeaderField[]) {
    this.fields = fields;
    this.malformed = this.#read();
    if (this.malformed !== "") return;
    this.isGrpc = isGrpcContentType(this.contentType);
    if (this.isGrpc) this.#checkGrpc();
  }

  /** The first field of that name, one character per byte. */
  get(name: string): string | undefined {
    const { fields } = this;
    for (let i = 0; i < fields.length; i++) {
      const field = fields[i]!;
      if (field.name === name) return field.value;
    }
    return undefined;
  }

  #read(): string {
    const { fields } = this;
    let pseudo = 0;
    let regular = false;
    for (let i = 0; i < fields.length; i++) {
      const field = fields[i]!;
      const { kind, value } = field;
      if (!field.valid) return "a header field has a character that HTTP/2 forbids";
      if (kind >= Kind.method && kind <= Kind.foreignPseudo) {
        if (regular) return `pseudo-header ${field.name} follows a regular field`;
        const bit = 1 << kind;
        if (kind === Kind.foreignPseudo || (pseudo & bit) !== 0) {
          return `pseudo-header ${field.name} is unknown or appears twice`;
        }
        pseudo |= bit;
        if (kind === Kind.method) this.method = value;
        else if (kind === Kind.path) this.path = value;
        else if (kind === Kind.scheme) this.scheme = value;
        else this.authority = value;
        continue;
      }
      regular = true;
      switch (kind) {
        case Kind.connectionSpecific:
          return `header ${field.name} belongs to HTTP/1 connections`;
        case Kind.te:
          if (value !== "trailers") return "header te is other than trailers";
          break;
        case Kind.contentType:
          this.contentType = value;
          break;
        case Kind.contentLength:
          if (!/^\d{1,15}$/.test(value) || (this.contentLength >= 0 && this.contentLength !== Number(value))) {
            return "header content-length is not one decimal number";
          }
          this.contentLength = Number(value);
          break;
        case Kind.grpcEncoding:
          this.encoding = value === "identity" ? "" : value;
          break;
        case Kind.host:
          if (this.authority === "") this.authority = value;
          break;
      }
    }
    const connect = this.method === "CONNECT";
    if (this.method === "" || (!connect && (this.path === "" || this.scheme === ""))) {
      return "a pseudo-header is missing or empty";
    }
    if (connect && (pseudo & ((1 << Kind.path) | (1 << Kind.scheme))) !== 0) return "CONNECT with :path or :scheme";
    return "";
  }

  #checkGrpc(): void {
    const suffix = this.contentType.slice("application/grpc".length + 1);
    if (suffix !== "") this.replyContentType = `application/grpc+${suffix}`;
    let hosts = 0;
    for (const { kind, name, value } of this.fields) {
      if (kind === Kind.host) hosts++;
      else if (kind === Kind.grpcTimeout) {
        const timeout = parseTimeout(value);
        if (typeof timeout === "number") this.timeoutMs = timeout;
        else this.refusal = { httpStatus: 400, code: Code.INTERNAL, message: `malformed grpc-timeout: ${timeout}` };
      } else if (kind === Kind.binary) {
        const at = base64ErrorAt(value);
        if (at < 0) continue;
        const message = `malformed binary metadata ${quote(value)} in header ${quote(name)}: illegal base64 data at input byte ${at}`;
        this.refusal = { httpStatus: 400, code: Code.INTERNAL, message };
      }
    }
    if (hosts > 1) {
      const message = `num values of :authority: 1, num values of host: ${hosts}, both must only have 1 value as per HTTP/2 spec`;
      this.refusal = { httpStatus: 400, code: Code.INTERNAL, message };
    } else if (this.refusal === undefined && this.method !== "POST") {
      const message = `Received a HEADERS frame with :method ${quote(this.method)} which should be POST`;
      this.refusal = { httpStatus: 405, code: Code.INTERNAL, message };
    }
  }
}

/** `application/grpc`, alone or with a suffix after `+` or `;`. */
function isGrpcContentType(type: string): boolean {
  if (type === "application/grpc") return true;
  return type.startsWith("application/grpc") && (type[16] === "+" || type[16] === ";");
}

/** The text for an unregistered method, in grpc-go's words. */
export function unimplementedMessage(path: string, services: ReadonlySet<string>): string {
  const slash = path.lastIndexOf("/");
  if (path[0] !== "/" || slash <= 0) return `malformed method name: ${quote(path)}`;
  const service = path.slice(1, slash);
  return services.has(service)
    ? `unknown method ${path.slice(slash + 1)} for service ${service}`
    : `unknown service ${service}`;
}

const CACHE_SLOTS = 16;
const CACHED_BLOCK_MAX = 512;

/**
 * Heads by the exact bytes of their header block. Clients repeat few blocks: once their fields are in the dynamic
 * table, equal calls have equal bytes. An entry is valid only for the table version at which it was decoded.
 */
export class HeadCache<Route> {
  #blocks: (Uint8Array | undefined)[] = new Array(CACHE_SLOTS).fill(undefined);
  #heads: (RequestHead<Route> | undefined)[] = new Array(CACHE_SLOTS).fill(undefined);
  #version = 0;
  #slot = 0;

  get(buf: Uint8Array, start: number, end: number, version: number): RequestHead<Route> | undefined {
    const length = end - start;
    if (length > CACHED_BLOCK_MAX) return undefined;
    let hash = length;
    for (let i = start; i < end; i++) hash = (Math.imul(hash, 31) + buf[i]!) | 0;
    const slot = (this.#slot = (hash ^ (hash >>> 15)) & (CACHE_SLOTS - 1));
    if (this.#version !== version) return undefined;
    const block = this.#blocks[slot];
    if (block === undefined || block.length !== length) return undefined;
    for (let i = 0; i < length; i++) if (block[i] !== buf[start + i]) return undefined;
    return this.#heads[slot];
  }

  /** Keeps the head of the block that `get` just missed; `version` is the table's from before that block. */
  put(buf: Uint8Array, start: number, end: number, version: number, head: RequestHead<Route>): void {
    if (end - start > CACHED_BLOCK_MAX) return;
    if (this.#version !== version) {
      this.#version = version;
      this.#blocks.fill(undefined);
      this.#heads.fill(undefined);
    }
    this.#blocks[this.#slot] = Uint8Array.prototype.slice.call(buf, start, end);
    this.#heads[this.#slot] = head;
  }
}
