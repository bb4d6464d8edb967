/** The messages of a stream of one request as an iterable: the server waits while the reader is slow. */
import type { MethodType } from "../base/protobuf.ts";
import type { Caller } from "./caller.ts";
import type { CallOptions } from "./options.ts";

/** Messages waiting for the reader above which the server waits. */
const WAITING_HIGH = 64;

/** Ends as the stream does; leaving the loop ends the stream. */
export async function* messagesOf<I, O>(
  caller: Caller,
  method: MethodType<I, O>,
  request: I,
  options: CallOptions,
): AsyncGenerator<O, void, undefined> {
  const waiting: O[] = [];
  let end: { readonly error: unknown } | undefined;
  let wake: (() => void) | undefined;
  const notify = () => wake?.();
  const stream = caller.stream(
    method,
    {
      onMessage: (message: O) => {
        if (waiting.push(message) >= WAITING_HIGH) stream.pause();
        notify();
      },
      onEnd: (error) => {
        end = { error };
        notify();
      },
    },
    options,
  );
  stream.send(request, true);
  try {
    for (;;) {
      const message = waiting.shift();
      if (message !== undefined) {
        if (waiting.length === 0) stream.resume();
        yield message;
      } else if (end === undefined) await new Promise<void>((resolve) => (wake = resolve));
      else if (end.error !== undefined) throw end.error;
      else return;
    }
  } finally {
    stream.cancel();
  }
}
