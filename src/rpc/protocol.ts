/** HTTP/2 constants (RFC 9113) and this server's limits for its peers. */

export const FrameType = {
  data: 0,
  headers: 1,
  priority: 2,
  rstStream: 3,
  settings: 4,
  pushPromise: 5,
  ping: 6,
  goaway: 7,
  windowUpdate: 8,
  continuation: 9,
} as const;

export const Flag = { endStream: 1, ack: 1, endHeaders: 4, padded: 8, priority: 0x20 } as const;

export const H2Error = {
  none: 0,
  protocol: 1,
  internal: 2,
  flowControl: 3,
  settingsTimeout: 4,
  streamClosed: 5,
  frameSize: 6,
  refusedStream: 7,
  cancel: 8,
  compression: 9,
  connect: 10,
  enhanceYourCalm: 11,
  inadequateSecurity: 12,
  http11Required: 13,
} as const;

export const Setting = {
  headerTableSize: 1,
  enablePush: 2,
  maxConcurrentStreams: 3,
  initialWindowSize: 4,
  maxFrameSize: 5,
  maxHeaderListSize: 6,
} as const;

export const PREFACE = Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "latin1");
export const FRAME_HEADER_BYTES = 9;
export const WINDOW_DEFAULT = 65535;
export const WINDOW_MAX = 2147483647;

/** Largest frame in either direction. Ours is the default, so that a peer's frame never delays others for long. */
export const FRAME_BYTES_MAX = 16384;

/** Bytes that a client may send ahead, per stream and per connection. */
export const STREAM_WINDOW = 1024 * 1024;
export const CONNECTION_WINDOW = 8 * 1024 * 1024;
/** Credit is returned in steps, not per frame. */
export const STREAM_CREDIT_STEP = STREAM_WINDOW / 2;
export const CONNECTION_CREDIT_STEP = CONNECTION_WINDOW / 2;

/**
 * Header list size of one request, by RFC 9113's measure (32 bytes added per field). A larger one is answered with 431.
 */
export const HEADER_LIST_BYTES_MAX = 128 * 1024;
/** A list this large can only be a compression bomb, which ends the connection. */
export const HEADER_BOMB_BYTES = 16 * HEADER_LIST_BYTES_MAX;
/** Compressed bytes and CONTINUATION frames of one header block. */
export const HEADER_BLOCK_BYTES_MAX = 2 * HEADER_LIST_BYTES_MAX;
export const CONTINUATIONS_MAX = 64;

/** Open streams per connection, whatever the configuration says. */
export const STREAMS_MAX = 100_000;

/** Bytes that may wait in the socket; beyond this, data frames stay in their streams and reading stops. */
export const SOCKET_BACKLOG_MAX = 256 * 1024;
/** Queued bytes of a stream above which `send` asks to wait for `onDrain`. */
export const STREAM_QUEUE_HIGH = 64 * 1024;
