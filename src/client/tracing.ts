/**
 * Spans of OpenTelemetry for the calls of a client, when the program has set it up: a span for each call, a child of what
 * is active, whose id goes to the server with the call (`traceparent`).
 *
 * The program's provider is found where all copies of `@opentelemetry/api` find it, in a global of that package's own: so
 * nothing is imported, and without OpenTelemetry a call costs one lookup.
 */
import { Code } from "../base/grpc-codes.ts";

/** The part of OpenTelemetry's API that is used. */
interface Span {
  spanContext(): { readonly traceId: string; readonly spanId: string; readonly traceFlags: number };
  setAttributes(attributes: Readonly<Record<string, string | number>>): unknown;
  setStatus(status: { readonly code: number; readonly message?: string }): unknown;
  end(): void;
}
interface Tracer {
  startSpan(name: string, options: object): Span;
}
interface Provider {
  getTracer(name: string): Tracer;
}

/** Source: `global-utils` of `@opentelemetry/api` 1.x, whose name for it has the major version. */
const API = Symbol.for("opentelemetry.js.api.1");
const CLIENT_KIND = 2;
const STATUS_ERROR = 2;

let tracer: { readonly provider: Provider; readonly tracer: Tracer } | undefined;

/** The span of a call of one request. */
export class CallSpan {
  readonly #span: Span;

  private constructor(span: Span) {
    this.#span = span;
  }

  /** Undefined without OpenTelemetry. `path` is that of the method, such as `/etcdserverpb.KV/Put`. */
  static begin(path: string): CallSpan | undefined {
    const provider: Provider | undefined = Reflect.get(globalThis, API)?.trace;
    if (provider === undefined) return undefined;
    if (tracer?.provider !== provider) tracer = { provider, tracer: provider.getTracer("kvorum/client") };
    const [, service, method] = path.split("/");
    const attributes = { "rpc.system": "grpc", "rpc.service": service, "rpc.method": method };
    return new CallSpan(tracer.tracer.startSpan(path.slice(1), { kind: CLIENT_KIND, attributes }));
  }

  /** The header by which a server goes on with the trace; undefined when there is none. */
  get traceparent(): string | undefined {
    const { traceId, spanId, traceFlags } = this.#span.spanContext();
    if (/^0*$/.test(traceId)) return undefined;
    return `00-${traceId}-${spanId}-${(traceFlags & 0xff).toString(16).padStart(2, "0")}`;
  }

  /** `code` is undefined for a call that was ended from this side. */
  end(code: number | undefined, endpoint: string | undefined, attempts: number): void {
    const span = this.#span;
    span.setAttributes({
      "rpc.grpc.status_code": code ?? Code.CANCELED,
      "kvorum.attempts": attempts,
      ...(endpoint === undefined ? {} : { "server.address": endpoint }),
    });
    if (code !== Code.OK) span.setStatus({ code: STATUS_ERROR });
    span.end();
  }
}
