import { EMPTY_BYTES } from "../base/protobuf.ts";
import { Entry, Message, MessageType } from "../proto/raftpb.ts";
import { ChunkWriter } from "./chunk-writer.ts";
import {
  FrameDecoder,
  MESSAGE_BYTES_MAX,
  type MessageSink,
  readLength,
  readUint64,
  StreamError,
} from "./frame-decoder.ts";

/** First byte of a frame. */
const LINK_HEARTBEAT = 0;
/** Entries that directly follow those sent before, in the same term: the rest of the message is implied. */
const APP_ENTRIES = 1;
/** A whole MsgApp. */
const APP = 2;

const TYPE = new Uint8Array(1);

/**
 * The codec of the stream for MsgApp (msgappv2): a byte for the type, then
 * - heartbeat: nothing;
 * - entries: their number, each with its length before it, then the commit index;
 * - message: its length and itself. Numbers have eight bytes, big-endian. Both ends keep the term and index of the last
 *   entry sent, which identify a message in raft's replicating state. Source: etcd's rafthttp/msgappv2_codec.go.
 */
export class MsgAppEncoder {
  readonly #writer = new ChunkWriter();
  #term = 0;
  #index = 0;
  #follows: boolean[] = [];

  /** One HTTP chunk with `messages[start .. end)`. */
  encode(messages: readonly Message[], start: number, end: number): Uint8Array[] {
    // A message's frame type depends on the messages before it, but the writer goes from last to first.
    const follows = this.#follows;
    for (let i = start; i < end; i++) follows[i - start] = this.#advance(messages[i]!);
    const writer = this.#writer;
    writer.begin();
    for (let i = end - 1; i >= start; i--) {
      if (follows[i - start]!) writeEntries(writer, messages[i]!);
      else writeMessage(writer, messages[i]!);
    }
    return writer.end();
  }

  heartbeat(): Uint8Array[] {
    this.#writer.begin();
    writeType(this.#writer, LINK_HEARTBEAT);
    return this.#writer.end();
  }

  /** Updates the receiver's knowledge after this message; returns whether it could already predict the message. */
  #advance({ term, logTerm, index, entries }: Message): boolean {
    if (this.#index === index && this.#term === logTerm && logTerm === term) {
      this.#index += entries.length;
      return true;
    }
    this.#term = term;
    this.#index = entries.length > 0 ? entries[entries.length - 1]!.index : index;
    return false;
  }
}

function writeEntries(writer: ChunkWriter, { entries, commit }: Message): void {
  writer.uint64BE(commit);
  for (let i = entries.length - 1; i >= 0; i--) {
    const mark = writer.length;
    Entry.write(writer, entries[i]!);
    writer.uint64BE(writer.length - mark);
  }
  writer.uint64BE(entries.length);
  writeType(writer, APP_ENTRIES);
}

function writeMessage(writer: ChunkWriter, message: Message): void {
  const mark = writer.length;
  Message.write(writer, message);
  writer.uint64BE(writer.length - mark);
  writeType(writer, APP);
}

function writeType(writer: ChunkWriter, type: number): void {
  TYPE[0] = type;
  writer.raw(TYPE);
}

/** The next unit of the stream. */
type Part = "type" | "message length" | "message" | "entry count" | "entry length" | "entry" | "commit";

/** Memory that an entry takes besides its bytes. */
const ENTRY_OVERHEAD_BYTES = 64;

export class MsgAppDecoder extends FrameDecoder {
  readonly #local: bigint;
  readonly #remote: bigint;
  #term = 0;
  #index = 0;
  #part: Part = "type";
  /** Entries of the current frame. */
  #entries: Entry[] = [];
  #entriesLeft = 0;
  #entriesBytes = 0;

  /** `local` receives what `remote` sends. */
  constructor(sink: MessageSink, local: bigint, remote: bigint) {
    super(sink, 1);
    this.#local = local;
    this.#remote = remote;
  }

  protected override unit(buf: Buffer, start: number, end: number): number {
    switch (this.#part) {
      case "type":
        return this.#type(buf[start]!);
      case "message length":
        this.#part = "message";
        return readLength(buf, start, MESSAGE_BYTES_MAX);
      case "message":
        return this.#message(buf, start, end);
      case "entry count":
        this.#entriesLeft = readLength(buf, start, MESSAGE_BYTES_MAX / ENTRY_OVERHEAD_BYTES);
        this.#entriesBytes = 0;
        return this.#nextEntry();
      case "entry length":
        return this.#entryLength(buf, start);
      case "entry":
        return this.#entry(buf, start, end);
      case "commit":
        return this.#commit(readUint64(buf, start));
    }
  }

  #type(type: number): number {
    if (type === LINK_HEARTBEAT) return 1;
    if (type !== APP_ENTRIES && type !== APP) throw new StreamError(`failed to parse type ${type} in msgappv2 stream`);
    this.#part = type === APP ? "message length" : "entry count";
    return 8;
  }

  #message(buf: Buffer, start: number, end: number): number {
    const message = Message.read(this.reader.reset(buf, start, end), end);
    this.#term = message.term;
    this.#index = message.entries.at(-1)?.index ?? message.index;
    this.sink.message(message);
    this.#part = "type";
    return 1;
  }

  #nextEntry(): number {
    this.#part = this.#entriesLeft > 0 ? "entry length" : "commit";
    return 8;
  }

  #entryLength(buf: Buffer, start: number): number {
    const length = readLength(buf, start, MESSAGE_BYTES_MAX);
    this.#entriesBytes += length + ENTRY_OVERHEAD_BYTES;
    if (this.#entriesBytes > MESSAGE_BYTES_MAX) {
      throw new StreamError(`the entries of one message exceed the limit of ${MESSAGE_BYTES_MAX} bytes`);
    }
    this.#part = "entry";
    return length;
  }

  #entry(buf: Buffer, start: number, end: number): number {
    this.#entries.push(Entry.read(this.reader.reset(buf, start, end), end));
    this.#entriesLeft--;
    return this.#nextEntry();
  }

  #commit(commit: number): number {
    const entries = this.#entries;
    const message: Message = {
      type: MessageType.MsgApp,
      to: this.#local,
      from: this.#remote,
      term: this.#term,
      logTerm: this.#term,
      index: this.#index,
      entries,
      commit,
      snapshot: undefined,
      reject: false,
      rejectHint: 0,
      context: EMPTY_BYTES,
      vote: 0n,
      responses: [],
    };
    this.#index += entries.length;
    this.#entries = [];
    this.sink.message(message);
    this.#part = "type";
    return 1;
  }
}
