/** The state and services that the RPC server shares with its connections. */
import type { Complaints } from "../base/complaints.ts";
import type { Compression } from "./compression.ts";
import type { Route } from "./contract.ts";
import type { DeadlineWheel } from "./deadlines.ts";
import type { Abuse } from "./guard.ts";
import type { Refusal } from "./head.ts";
import type { HeldBytes } from "./held-bytes.ts";
import type { RpcServerOptions } from "./options.ts";
import type { ChunkPool } from "./output.ts";
import type { ReadTurns } from "./read-turns.ts";

/** A connection with data to write at the end of this turn. */
export interface Flushable {
  flushQueued: boolean;
  flush(): void;
}

export interface RpcStats {
  connections: number;
  connectionsAccepted: number;
  /** Connections that broke the protocol or flooded. */
  connectionErrors: number;
  /** Connections closed because the peer flooded, by reason. */
  readonly abuses: { [abuse in Abuse]?: number };
  /** Streams opened so far. */
  streams: number;
  bytesReceived: number;
  bytesSent: number;
  /** Exceptions of handlers, each of which failed its call. */
  crashes: number;
}

/** Shared by all connections. */
export interface RpcCore extends Omit<RpcServerOptions, "http1"> {
  readonly routes: ReadonlyMap<string, Route>;
  readonly services: ReadonlySet<string>;
  readonly deadlines: DeadlineWheel;
  readonly chunks: ChunkPool;
  readonly compression: Compression;
  readonly heldRequests: HeldBytes;
  readonly heldReplies: HeldBytes;
  readonly readTurns: ReadTurns;
  readonly stats: RpcStats;
  readonly complaints: Complaints;
  readonly headersTooLarge: Refusal;
  flushLater(connection: Flushable): void;
  /** A handler threw: logs the error, and rethrows it if it is fatal. */
  crashed(path: string, error: unknown): void;
}
