/**
 * Selects the streams of a connection to drop when the clients of all connections make the server hold too much: the
 * largest first, until enough is free.
 */
import type { Connection } from "./connection.ts";
import type { Stream } from "./stream.ts";

type Streams = ReadonlyMap<number, Stream>;

export function giveUpReplies(connection: Connection, streams: Streams, bytes: number): void {
  // Bytes the socket does not take cannot be freed here, and nothing further would arrive.
  if (connection.sender.isBlocked || connection.closed) {
    connection.failAbuse("unread_replies");
    return connection.destroy();
  }
  const { replies } = connection;
  const target = replies.bytes - bytes;
  largestFirst(
    streams,
    (stream) => stream.queueBytes,
    () => replies.bytes > target,
    (stream) => stream.giveUpReplies(),
  );
}

export function giveUpRequests(connection: Connection, streams: Streams, bytes: number): void {
  const { requests } = connection;
  const target = requests.bytes - bytes;
  largestFirst(
    streams,
    (stream) => stream.requestBytes,
    () => requests.bytes > target,
    (stream) => stream.giveUpRequest(),
  );
}

/** Approximately: each pass takes those above half the threshold of the previous pass. */
function largestFirst(
  streams: Streams,
  sizeOf: (stream: Stream) => number,
  goesOn: () => boolean,
  act: (stream: Stream) => void,
): void {
  let least = 0;
  for (const stream of streams.values()) least = Math.max(least, sizeOf(stream));
  while (least > 0 && goesOn()) {
    least = least < LEAST_BYTES ? 0 : Math.floor(least / 2);
    for (const stream of streams.values()) {
      if (!goesOn()) return;
      if (sizeOf(stream) > least) act(stream);
    }
  }
}

/** Streams below this are all taken at once. */
const LEAST_BYTES = 1024;
