/** Spans as OpenTelemetry's collectors take them. Source: opentelemetry-proto, trace/v1 and collector/trace/v1. */
import type { AttributeValue, Span } from "./span.ts";

export interface OtlpResource {
  readonly serviceName: string;
  /** Empty for none. */
  readonly instanceId: string;
  readonly version: string;
}

export const OTLP_EXPORT_PATH = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

/** An ExportTraceServiceRequest. */
export function encodeExport({ serviceName, instanceId, version }: OtlpResource, spans: readonly Span[]): Buffer {
  const attributes: Record<string, string> = { "service.name": serviceName };
  if (instanceId !== "") attributes["service.instance.id"] = instanceId;
  const resource = keyValues(1, attributes);
  const scope = Buffer.concat([text(1, "kvorum"), text(2, version)]);
  const scopeSpans = Buffer.concat([field(1, scope), ...spans.map((span) => field(2, encodeSpan(span)))]);
  return field(1, Buffer.concat([field(1, resource), field(2, scopeSpans)]));
}

const KINDS = { internal: 1, server: 2 } as const;
const STATUS_ERROR = 2;

function encodeSpan(span: Span): Buffer {
  return Buffer.concat([
    field(1, Buffer.from(span.traceId, "hex")),
    field(2, Buffer.from(span.spanId, "hex")),
    text(3, span.state),
    field(4, Buffer.from(span.parentId, "hex")),
    text(5, span.name),
    varint(6, KINDS[span.kind]),
    time(7, span.startMs),
    time(8, span.endMs),
    keyValues(9, span.attributes),
    span.error === undefined ? NOTHING : field(15, Buffer.concat([text(2, span.error), varint(3, STATUS_ERROR)])),
  ]);
}

function keyValues(number: number, attributes: Readonly<Record<string, AttributeValue>>): Buffer {
  const all = Object.entries(attributes).map(([key, value]) =>
    field(number, Buffer.concat([text(1, key), field(2, anyValue(value))])),
  );
  return Buffer.concat(all);
}

/** Also a zero or an empty text is a value. */
function anyValue(value: AttributeValue): Buffer {
  if (typeof value === "string") return Buffer.concat([head(1, 2), size(Buffer.byteLength(value)), Buffer.from(value)]);
  if (typeof value === "boolean") return Buffer.concat([head(2, 0), size(value ? 1 : 0)]);
  return Buffer.concat([head(3, 0), big(BigInt.asUintN(64, BigInt(Math.trunc(value))))]);
}

const NOTHING = Buffer.alloc(0);

const head = (number: number, wireType: number): Buffer => size(number * 8 + wireType);
const size = (value: number): Buffer => big(BigInt(value));

function big(value: bigint): Buffer {
  const bytes: number[] = [];
  for (; value >= 128n; value >>= 7n) bytes.push(Number(value & 127n) | 128);
  bytes.push(Number(value));
  return Buffer.from(bytes);
}

/** A field with a length; nothing when it is empty. */
function field(number: number, content: Buffer): Buffer {
  return content.length === 0 ? NOTHING : Buffer.concat([head(number, 2), size(content.length), content]);
}

const text = (number: number, value: string): Buffer => field(number, Buffer.from(value));
const varint = (number: number, value: number): Buffer => Buffer.concat([head(number, 0), size(value)]);

/** Nanoseconds since the epoch, of milliseconds with a fraction. */
function time(number: number, ms: number): Buffer {
  const whole = Math.floor(ms);
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(BigInt(whole) * 1_000_000n + BigInt(Math.floor((ms - whole) * 1_000_000)));
  return Buffer.concat([head(number, 1), bytes]);
}
