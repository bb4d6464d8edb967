/**
 * What a client tells the channels of `node:diagnostics_channel`, for those who measure or trace: the end of each call
 * with one response, and each change of a connection. Nobody subscribed: a call costs one test.
 */
import { channel } from "node:diagnostics_channel";

/** Published on `kvorum:client:call`. */
export interface CallDiagnostics {
  /** `/etcdserverpb.KV/Put` */
  readonly method: string;
  /** The member that answered last; undefined when none was reached. */
  readonly endpoint: string | undefined;
  /** gRPC status; undefined when it was ended from this side, as by its signal. */
  readonly code: number | undefined;
  readonly attempts: number;
  /** Milliseconds from the call to its end. */
  readonly tookMs: number;
}

/** Published on `kvorum:client:connection`. */
export interface ConnectionDiagnostics {
  readonly endpoint: string;
  readonly connected: boolean;
  /** Why not; empty when it is. */
  readonly problem: string;
}

export const callChannel = channel("kvorum:client:call");
export const connectionChannel = channel("kvorum:client:connection");
