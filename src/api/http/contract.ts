import type { RpcSocket } from "../../rpc/contract.ts";
import type { HttpBody } from "./body.ts";
import type { Target } from "./paths.ts";

/** A request of the plain side (health, metrics, version, gateway), whichever protocol brought it. */
export interface HttpRequest {
  readonly method: string;
  /** Undefined when what was asked for is no URL. */
  readonly target: Target | undefined;
  /** Of the target, decoded. */
  readonly path: string;
  readonly query: URLSearchParams;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly body: HttpBody;
  readonly socket: RpcSocket;
  /** The client has gone: answers go nowhere. */
  cancelled: boolean;
  /** Called once when the client goes before the end of its answer. */
  onCancel: (() => void) | null;
}

export interface HttpResponse {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  /** All of it, or what sends it in pieces. */
  readonly body: string | Uint8Array | ((sink: HttpSink) => void);
}

/** Where the pieces of an answer go. Once the client has gone they go nowhere. */
export interface HttpSink {
  /** False: wait for `onDrain` before the next. */
  write(text: string): boolean;
  end(): void;
  /** Cuts the answer off: the client learns that it is not whole. */
  abort(): void;
  onDrain: (() => void) | null;
}

/** Answers a request, or undefined when it is not one of its paths. */
export type HttpHandler = (request: HttpRequest) => Promise<HttpResponse> | undefined;
