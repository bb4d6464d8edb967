import type { RpcSocket } from "../../rpc/contract.ts";
import type { HttpBody } from "./body.ts";
import type { Target } from "./paths.ts";

/** A request for the HTTP handlers (health, metrics, version, gateway), over HTTP/1 or HTTP/2. */
export interface HttpRequest {
  readonly method: string;
  /** Undefined when the target is not a valid URL. */
  readonly target: Target | undefined;
  /** The target's path, decoded. */
  readonly path: string;
  readonly query: URLSearchParams;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly body: HttpBody;
  readonly socket: RpcSocket;
  /** The client is gone: answers are dropped. */
  cancelled: boolean;
  /** Called once when the client leaves before the end of its answer. */
  onCancel: (() => void) | null;
}

export interface HttpResponse {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  /** The complete body, or a function that sends it in pieces. */
  readonly body: string | Uint8Array | ((sink: HttpSink) => void);
}

/** Receives the pieces of an answer. Once the client is gone they are dropped. */
export interface HttpSink {
  /** False: wait for `onDrain` before the next. */
  write(text: string): boolean;
  end(): void;
  /** Cuts off the answer: the client sees that it is incomplete. */
  abort(): void;
  onDrain: (() => void) | null;
}

/** Answers a request, or returns undefined for another path. */
export type HttpHandler = (request: HttpRequest) => Promise<HttpResponse> | undefined;
