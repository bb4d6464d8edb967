import { Message, MessageType } from "../proto/raftpb.ts";
import { ChunkWriter } from "./chunk-writer.ts";
import { FrameDecoder, MESSAGE_BYTES_MAX, type MessageSink, readLength } from "./frame-decoder.ts";

/**
 * The codec of the general message stream: each message with its length before it, in eight bytes, big-endian. Source:
 * etcd's rafthttp/msg_codec.go.
 */
export class MessageEncoder {
  readonly #writer = new ChunkWriter();

  /** One HTTP chunk with `messages[start .. end)`. */
  encode(messages: readonly Message[], start: number, end: number): Uint8Array[] {
    const writer = this.#writer;
    writer.begin();
    for (let i = end - 1; i >= start; i--) writeWithLength(writer, messages[i]!);
    return writer.end();
  }

  heartbeat(): Uint8Array[] {
    this.#writer.begin();
    writeWithLength(this.#writer, LINK_HEARTBEAT);
    return this.#writer.end();
  }
}

export class MessageDecoder extends FrameDecoder {
  #inMessage = false;

  constructor(sink: MessageSink) {
    super(sink, 8);
  }

  protected override unit(buf: Buffer, start: number, end: number): number {
    this.#inMessage = !this.#inMessage;
    if (this.#inMessage) return readLength(buf, start, MESSAGE_BYTES_MAX);
    const message = Message.read(this.reader.reset(buf, start, end), end);
    if (!isLinkHeartbeat(message)) this.sink.message(message);
    return 8;
  }
}

function writeWithLength(writer: ChunkWriter, message: Message): void {
  const mark = writer.length;
  Message.write(writer, message);
  writer.uint64BE(writer.length - mark);
}

/** Keeps a stream alive; raft's own heartbeats always name their sender. */
const LINK_HEARTBEAT = Message.create({ type: MessageType.MsgHeartbeat });

const isLinkHeartbeat = (message: Message): boolean =>
  message.type === MessageType.MsgHeartbeat && message.from === 0n && message.to === 0n;
