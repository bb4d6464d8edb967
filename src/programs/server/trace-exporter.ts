/**
 * Sends spans to a collector with OTLP over gRPC, in batches and with the limits of OpenTelemetry's batch processor. What the
 * collector does not take in time is dropped, and the log says so.
 */

import { encodeExport, OTLP_EXPORT_PATH, type OtlpResource } from "../../api/tracing/otlp.ts";
import type { Span, SpanSink } from "../../api/tracing/span.ts";
import { inBackground } from "../../base/background.ts";
import type { Clock, Timer } from "../../base/clock.ts";
import { Complaints } from "../../base/complaints.ts";
import { messageOf } from "../../base/errors.ts";
import type { Logger } from "../../base/log.ts";
import type { Codec, MethodType } from "../../base/protobuf.ts";
import { Client } from "../../client/client.ts";

const QUEUE_MAX = 2048;
const BATCH = 512;
const DELAY_MS = 5000;
const TIMEOUT_MS = 10_000;
const CLOSE_MS = 2000;

export interface TraceExporterOptions {
  /** `host:port`, without TLS. */
  readonly address: string;
  readonly resource: OtlpResource;
  readonly clock: Clock;
  readonly logger: Logger;
}

export class TraceExporter implements SpanSink {
  readonly #options: TraceExporterOptions;
  readonly #client: Client;
  readonly #complaints: Complaints;
  #queue: Span[] = [];
  #timer: Timer | undefined;
  #sending: Promise<void> | undefined;
  #dropped = 0;

  /** Throws EndpointError. */
  constructor(options: TraceExporterOptions) {
    this.#options = options;
    this.#client = new Client({ endpoints: options.address, clock: options.clock });
    this.#complaints = new Complaints(options.logger, options.clock);
  }

  add(spans: readonly Span[]): void {
    if (this.#queue.length + spans.length > QUEUE_MAX) {
      this.#dropped += spans.length;
      this.#complaints.warn("spans are dropped: the collector of traces is too slow, or away", {
        address: this.#options.address,
      });
      return;
    }
    this.#queue.push(...spans);
    if (this.#queue.length >= BATCH) this.#send();
    else this.#timer ??= this.#options.clock.after(DELAY_MS, () => this.#send());
  }

  /** Sends what there is, and gives up after two seconds. */
  async close(): Promise<void> {
    await this.#sending;
    this.#send(CLOSE_MS);
    await this.#sending;
    this.#client.close();
  }

  #send(timeoutMs = TIMEOUT_MS): void {
    this.#timer?.cancel();
    this.#timer = undefined;
    if (this.#sending !== undefined || this.#queue.length === 0) return;
    const spans = this.#queue.splice(0, BATCH);
    this.#sending = this.#export(spans, timeoutMs).finally(() => {
      this.#sending = undefined;
      if (this.#queue.length >= BATCH) this.#send();
      else if (this.#queue.length > 0) this.#timer ??= this.#options.clock.after(DELAY_MS, () => this.#send());
    });
    inBackground(this.#sending, "send traces", this.#options.logger);
  }

  async #export(spans: readonly Span[], timeoutMs: number): Promise<void> {
    const { address, resource } = this.#options;
    try {
      const request = encodeExport(resource, spans);
      await this.#client.caller.unary(EXPORT, request, "write", { timeoutMs }, () => undefined);
    } catch (error) {
      this.#dropped += spans.length;
      const fields = { address, error: messageOf(error), "dropped-spans": this.#dropped };
      this.#complaints.warn("failed to send traces", fields);
    }
  }
}

const bytes: Codec<Uint8Array> = {
  typeName: "bytes",
  create: () => new Uint8Array(),
  decode: (buffer, start = 0, end = buffer.length) => buffer.subarray(start, end),
  encode: (message) => Buffer.from(message.buffer, message.byteOffset, message.byteLength),
  write: (writer, message) => void writer.raw(message),
  read: () => new Uint8Array(),
};

const EXPORT: MethodType<Uint8Array, Uint8Array> = {
  name: "Export",
  path: OTLP_EXPORT_PATH,
  request: bytes,
  response: bytes,
  requestStream: false,
  responseStream: false,
  httpPaths: [],
};
