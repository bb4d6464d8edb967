import { FRAME_BYTES_MAX, H2Error, Setting, WINDOW_MAX } from "./protocol.ts";

/** The values of a client's SETTINGS frame that the server uses. */
export interface PeerSettings {
  /** All values, because the encoder must follow each. */
  readonly headerTableSizes: readonly number[];
  /** The last value, because only the sum of changes matters. */
  readonly initialWindowSize: number | undefined;
}

/** Reads the pairs of a frame; an error code when a value is out of range. */
export function readSettings(buf: Buffer, start: number, end: number): PeerSettings | number {
  const headerTableSizes: number[] = [];
  let initialWindowSize: number | undefined;
  for (let pos = start; pos < end; pos += 6) {
    const value = buf.readUInt32BE(pos + 2);
    switch (buf.readUInt16BE(pos)) {
      case Setting.headerTableSize:
        headerTableSizes.push(value);
        break;
      case Setting.enablePush:
        if (value > 1) return H2Error.protocol;
        break;
      case Setting.maxFrameSize:
        if (value < FRAME_BYTES_MAX || value > 0xffffff) return H2Error.protocol;
        break;
      case Setting.initialWindowSize:
        if (value > WINDOW_MAX) return H2Error.flowControl;
        initialWindowSize = value;
        break;
    }
  }
  return { headerTableSizes, initialWindowSize };
}
