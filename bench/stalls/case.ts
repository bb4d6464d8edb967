import type { TlsOptions } from "../../src/client/raw.ts";
import type { Server } from "../../test/harness/server.ts";
import type { Side } from "../report.ts";

/** The member's data before the heavy load begins. */
export type DataSet =
  /** `--keys` keys of 256 bytes. */
  | "keys"
  /** `--large-mib` MiB in values of 500 kB. */
  | "large"
  /** 2,000 leases with one key each, authentication enabled: root, and a user with permissions on a prefix. */
  | "users"
  /** Empty, over TLS. */
  | "tls"
  | "empty";

export interface Sizes {
  readonly keys: number;
  readonly largeMib: number;
  readonly leases: number;
  readonly watches: number;
  readonly handshakes: number;
  /** Duration in seconds of loads without their own end. */
  readonly seconds: number;
}

/** The member under load, and what a case may do with it. */
export interface Bench {
  readonly side: Side;
  readonly server: Server;
  readonly port: number;
  readonly sizes: Sizes;
  /** Root's token, when authentication is enabled. */
  readonly token: string | undefined;
  readonly tls: TlsOptions | undefined;
  /** Long turns count from here on (Unix time in milliseconds); set when the heavy load begins, unless set earlier. */
  turnsSinceMs: number | undefined;
  /** A note for the table, beside the waits. */
  note(text: string): void;
}

export interface Case {
  readonly name: string;
  /** The request, for `--help`. */
  readonly what: string;
  readonly data: DataSet;
  /** Changes the data: the next case gets another member. */
  readonly spoils?: boolean;
  /** Not possible in a cluster of three. */
  readonly alone?: boolean;
  /** Sets up data beyond the data set; nothing is measured meanwhile. */
  prepare?(bench: Bench): Promise<void>;
  /** The heavy load, beside the honest client. Must be bounded. */
  run(bench: Bench): Promise<void>;
}

/** Upper limit of a case: unfinished work is abandoned. */
export const LIMIT_MS = 240_000;
