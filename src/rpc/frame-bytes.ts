/** The bytes before a frame, and before a message of gRPC in it: written by hand, for this is the way of every reply. */

/** Length prefix of a gRPC message. */
export const PREFIX_BYTES = 5;

export function frameHeader(buf: Buffer, at: number, length: number, type: number, flags: number, id: number): void {
  frameLength(buf, at, length);
  buf[at + 3] = type;
  buf[at + 4] = flags;
  buf[at + 5] = id >>> 24;
  buf[at + 6] = id >>> 16;
  buf[at + 7] = id >>> 8;
  buf[at + 8] = id;
}

export function frameLength(buf: Buffer, at: number, length: number): void {
  buf[at] = length >>> 16;
  buf[at + 1] = length >>> 8;
  buf[at + 2] = length;
}

export function messagePrefix(buf: Buffer, at: number, compressed: boolean, length: number): void {
  buf[at] = compressed ? 1 : 0;
  buf[at + 1] = length >>> 24;
  buf[at + 2] = length >>> 16;
  buf[at + 3] = length >>> 8;
  buf[at + 4] = length;
}
