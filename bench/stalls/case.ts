import type { TlsOptions } from "../../src/client/raw.ts";
import type { Server } from "../../test/harness/server.ts";
import type { Side } from "../report.ts";

/** What a member holds before the heavy thing begins. */
export type DataSet =
  /** `--keys` keys of 256 bytes. */
  | "keys"
  /** `--large-mib` MiB in values of 500 kB. */
  | "large"
  /** 2,000 leases with a key each, users on: root, and one with rights on a prefix. */
  | "users"
  /** Nothing, over TLS. */
  | "tls"
  | "empty";

export interface Sizes {
  readonly keys: number;
  readonly largeMib: number;
  readonly leases: number;
  readonly watches: number;
  readonly handshakes: number;
  /** Seconds that loads without an end of their own go on. */
  readonly seconds: number;
}

/** The member under load, and what a case may ask of it. */
export interface Bench {
  readonly side: Side;
  readonly server: Server;
  readonly port: number;
  readonly sizes: Sizes;
  /** Of root, when users are on. */
  readonly token: string | undefined;
  readonly tls: TlsOptions | undefined;
  /** Long turns count from here on (Unix time in milliseconds); set when the heavy thing begins, unless it was before. */
  turnsSinceMs: number | undefined;
  /** Something that belongs into the table beside the waits. */
  note(text: string): void;
}

export interface Case {
  readonly name: string;
  /** What is asked, for the reader of `--help`. */
  readonly what: string;
  readonly data: DataSet;
  /** Leaves the data changed: the next case gets another member. */
  readonly spoils?: boolean;
  /** Cannot be asked of a cluster of three. */
  readonly alone?: boolean;
  /** What must be there besides the data set; nobody waits meanwhile. */
  prepare?(bench: Bench): Promise<void>;
  /** The heavy thing, beside the honest client. Must end by itself. */
  run(bench: Bench): Promise<void>;
}

/** Nothing takes longer: what is not done by then is given up. */
export const LIMIT_MS = 240_000;
