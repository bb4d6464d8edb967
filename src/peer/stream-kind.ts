import type { Message } from "../proto/raftpb.ts";
import type { FrameDecoder, MessageSink } from "./frame-decoder.ts";
import { MessageDecoder, MessageEncoder } from "./message-codec.ts";
import { MsgAppDecoder, MsgAppEncoder } from "./msgapp-codec.ts";

/** Writes the messages of one stream; each call makes one HTTP chunk, as pieces to send in order. */
export interface StreamEncoder {
  encode(messages: readonly Message[], start: number, end: number): Uint8Array[];
  heartbeat(): Uint8Array[];
}

/** The two streams that a member opens to each of the others: one for MsgApp, one for all other messages. */
export interface StreamKind {
  /** Its name in the log. */
  readonly name: string;
  /** Path before the id of the requesting member. */
  readonly path: string;
  encoder(): StreamEncoder;
  decoder(sink: MessageSink, local: bigint, remote: bigint): FrameDecoder;
}

export const MSG_APP_STREAM: StreamKind = {
  name: "stream MsgApp v2",
  path: "/raft/stream/msgapp/",
  encoder: () => new MsgAppEncoder(),
  decoder: (sink, local, remote) => new MsgAppDecoder(sink, local, remote),
};

export const MESSAGE_STREAM: StreamKind = {
  name: "stream Message",
  path: "/raft/stream/message/",
  encoder: () => new MessageEncoder(),
  decoder: (sink) => new MessageDecoder(sink),
};
