/** gRPC codes for what is no gRPC status: HTTP statuses and errors of HTTP/2. */
import { Code } from "../../base/grpc-codes.ts";
import { H2Error } from "../../rpc/protocol.ts";

/** Source: gRPC's mapping of HTTP statuses. */
export const HTTP_CODES: Readonly<Record<number, number>> = {
  400: Code.INTERNAL,
  401: Code.UNAUTHENTICATED,
  403: Code.PERMISSION_DENIED,
  404: Code.UNIMPLEMENTED,
  429: Code.UNAVAILABLE,
  502: Code.UNAVAILABLE,
  503: Code.UNAVAILABLE,
  504: Code.UNAVAILABLE,
};

/** Source: gRPC over HTTP2, errors. */
export const RESET_CODES: Readonly<Record<number, readonly [number, string]>> = {
  [H2Error.refusedStream]: [Code.UNAVAILABLE, "the server refused the stream"],
  [H2Error.cancel]: [Code.CANCELED, "the server cancelled the stream"],
  [H2Error.enhanceYourCalm]: [Code.RESOURCE_EXHAUSTED, "the server asks for less"],
  [H2Error.inadequateSecurity]: [Code.PERMISSION_DENIED, "the server asks for better encryption"],
};
