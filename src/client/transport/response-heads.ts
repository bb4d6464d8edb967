/**
 * The header blocks that a server sends on one connection: joins HEADERS and CONTINUATION fragments, decodes them in
 * order, and gives their meaning for gRPC. Blocks that repeat, as nearly all do, are recognised by their bytes.
 */
import { HeaderFragments } from "../../rpc/header-fragments.ts";
import { HpackDecoder } from "../../rpc/hpack/decoder.ts";
import type { HeaderField } from "../../rpc/hpack/fields.ts";
import { HEADER_LIST_BYTES_MAX } from "../../rpc/protocol.ts";

/** Response headers or trailers. */
export interface ResponseHead {
  /** HTTP status; 0 in trailers. */
  readonly status: number;
  readonly contentType: string;
  readonly encoding: string;
  /** -1 when absent. */
  readonly grpcStatus: number;
  readonly grpcMessage: string;
}

const REMEMBERED_BYTES_MAX = 64;
const REMEMBERED_MAX = 4;

interface Remembered {
  readonly bytes: Buffer;
  readonly version: number;
  readonly head: ResponseHead;
}

export class ResponseHeads extends HeaderFragments {
  readonly #decoder = new HpackDecoder();
  #remembered: Remembered[] = [];

  /** Throws HpackError. */
  decode(buf: Buffer, start: number, end: number): ResponseHead {
    const { version } = this.#decoder;
    const length = end - start;
    for (const each of this.#remembered) {
      if (each.version === version && same(each.bytes, buf, start, length)) return each.head;
    }
    const fields: HeaderField[] = [];
    this.#decoder.decode(buf, start, end, fields, HEADER_LIST_BYTES_MAX);
    const head = headOf(fields);
    if (this.#decoder.version === version && length <= REMEMBERED_BYTES_MAX) {
      const others = this.#remembered.filter((each) => each.version === version).slice(0, REMEMBERED_MAX - 1);
      this.#remembered = [{ bytes: Buffer.from(buf.subarray(start, end)), version, head }, ...others];
    }
    return head;
  }
}

function same(bytes: Buffer, buf: Buffer, start: number, length: number): boolean {
  if (bytes.length !== length) return false;
  for (let i = 0; i < length; i++) if (bytes[i] !== buf[start + i]) return false;
  return true;
}

function headOf(fields: readonly HeaderField[]): ResponseHead {
  let [status, contentType, encoding, grpcStatus, grpcMessage] = [0, "", "", -1, ""];
  for (const { name, value } of fields) {
    if (name === ":status") status = Number(value);
    else if (name === "content-type") contentType = value;
    else if (name === "grpc-encoding") encoding = value;
    else if (name === "grpc-status") grpcStatus = /^\d+$/.test(value) ? Number(value) : 2;
    else if (name === "grpc-message") grpcMessage = decodeMessage(value);
  }
  return { status, contentType, encoding, grpcStatus, grpcMessage };
}

/** Percent-encoded UTF-8; what is not well encoded is kept as it is. */
function decodeMessage(text: string): string {
  if (!text.includes("%")) return text;
  const bytes = text.replaceAll(/%([0-9a-fA-F]{2})/g, (_, hex: string) =>
    String.fromCharCode(Number.parseInt(hex, 16)),
  );
  return Buffer.from(bytes, "latin1").toString("utf8");
}
