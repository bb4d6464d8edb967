import { existsSync } from "node:fs";
import type { LogLevel } from "./log.ts";
import { DescriptorSink, type LogSink } from "./log-sink.ts";
import { openUnixDatagram, type UnixDatagramSender } from "./unix-datagram.ts";

/**
 * `--log-outputs=systemd/journal`: each line becomes one journal entry with its priority, as etcd writes it. A line
 * that the journal does not accept (it is down, the line is too long for a datagram) goes to stderr instead. Source:
 * https://systemd.io/JOURNAL_NATIVE_PROTOCOL/
 */
export const JOURNAL_SOCKET = "/run/systemd/journal/socket";

/** syslog(3) priorities of zap's levels. */
const PRIORITY: Readonly<Record<LogLevel, number>> = {
  debug: 7,
  info: 6,
  warn: 4,
  error: 3,
  dpanic: 2,
  panic: 2,
  fatal: 2,
};

/** Fails with etcd's text when there is no journal on this machine. */
export async function openJournalSink(identifier: string, socket = JOURNAL_SOCKET): Promise<LogSink> {
  if (!existsSync(socket)) {
    throw new Error(`can't find journal (dial unixgram ${socket}: connect: no such file or directory)`);
  }
  return new JournalSink(await openUnixDatagram(), socket, identifier);
}

class JournalSink implements LogSink {
  readonly #sender: UnixDatagramSender;
  readonly #socket: string;
  readonly #identifier: string;
  readonly #fallback = new DescriptorSink(2);

  constructor(sender: UnixDatagramSender, socket: string, identifier: string) {
    this.#sender = sender;
    this.#socket = socket;
    this.#identifier = identifier;
  }

  write(line: string, level: LogLevel): void {
    try {
      this.#sender.send(this.#socket, journalEntry(line, level, this.#identifier));
    } catch {
      this.#fallback.write(line);
    }
  }

  sync(): void {
    this.#fallback.sync();
  }

  close(): void {
    this.#sender.close();
    this.#fallback.close();
  }
}

/** The message uses the field form with a length, because it ends in a newline. */
export function journalEntry(line: string, level: LogLevel, identifier: string): Buffer {
  const message = Buffer.from(line);
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(message.length));
  const head = `PRIORITY=${PRIORITY[level]}\nSYSLOG_IDENTIFIER=${identifier.replaceAll("\n", " ")}\nMESSAGE\n`;
  return Buffer.concat([Buffer.from(head), length, message, Buffer.from("\n")]);
}
