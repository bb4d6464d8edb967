/** What a trace is made of, and how its context travels. Source: OpenTelemetry; W3C Trace Context. */

/** Bytes of an id, in hexadecimal. */
export interface TraceContext {
  readonly traceId: string;
  readonly spanId: string;
  readonly isSampled: boolean;
  readonly state: string;
}

export type AttributeValue = string | number | boolean;

export interface Span {
  readonly traceId: string;
  readonly spanId: string;
  /** Empty for the first of a trace. */
  readonly parentId: string;
  readonly state: string;
  readonly name: string;
  readonly kind: "server" | "internal";
  /** Milliseconds since the Unix epoch, with a fraction. */
  readonly startMs: number;
  readonly endMs: number;
  readonly attributes: Readonly<Record<string, AttributeValue>>;
  /** Undefined when it did not fail. */
  readonly error: string | undefined;
}

/** Takes finished spans. Must not block, and drops what is too much. */
export interface SpanSink {
  add(spans: readonly Span[]): void;
}

const TRACE_PARENT = /^([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?$/;
const STATE_LENGTH_MAX = 512;

/** The context in a `traceparent` header; undefined when it has none that can be used. */
export function readTraceParent(text: string | undefined, state = ""): TraceContext | undefined {
  const [, version, traceId, spanId, flags, more] = TRACE_PARENT.exec(text ?? "") ?? [];
  if (version === undefined || traceId === undefined || spanId === undefined || flags === undefined) return undefined;
  if (version === "ff" || (version === "00" && more !== undefined)) return undefined;
  if (/^0+$/.test(traceId) || /^0+$/.test(spanId)) return undefined;
  const isSampled = (Number.parseInt(flags, 16) & 1) === 1;
  return { traceId, spanId, isSampled, state: state.length <= STATE_LENGTH_MAX ? state : "" };
}
