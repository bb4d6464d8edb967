/**
 * Who gives up what is held on a connection, when the clients of all connections together make us hold too much: the streams
 * that hold most, until enough is free.
 */
import type { Connection } from "./connection.ts";
import type { Stream } from "./stream.ts";

type Streams = ReadonlyMap<number, Stream>;

export function giveUpReplies(connection: Connection, streams: Streams, bytes: number): void {
  // What the socket does not take is not ours any more, and nothing that we say would arrive.
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

/** Nearly so: each pass takes those above half of what the pass before took. */
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

/** Those below are asked all at once. */
const LEAST_BYTES = 1024;
