/** What one flag of the server is: the row type of the table in flags.ts. */
export interface FlagSpec {
  readonly name: string;
  readonly kind: FlagKind;
  /** The default in the notation of the command line. */
  readonly default: string;
  readonly section: FlagSection;
  /** One or more lines for `etcd --help`. */
  readonly help: string;
  /** For the kinds `choice` and `choices`. */
  readonly choices?: readonly string[];
  /** Absent means honoured. */
  readonly status?: FlagStatus;
}

/**
 * `text`, `bool`, Go's integers and `duration` are Go's own kinds of flags. The others are lists separated by commas:
 * `urls` (checked, sorted, each once), `origins` (URLs or `*`), `set` (each once, sorted), `list` (as given).
 * `choice` is one of `choices`, `choices` some of them; `features` is `Name=true,…`.
 */
export type FlagKind =
  | "text"
  | "bool"
  | "int"
  | "int64"
  | "uint"
  | "uint64"
  | "uint32"
  | "duration"
  | "urls"
  | "origins"
  | "set"
  | "list"
  | "choice"
  | "choices"
  | "features";

export type FlagSection =
  | "Member"
  | "Clustering"
  | "Security"
  | "Auth"
  | "Profiling and Monitoring"
  | "Logging"
  | "Distributed tracing"
  | "Features"
  | "Unsafe feature";

/**
 * How this build treats a flag that etcd v3.7 has:
 * - `honoured`: it does what etcd's documentation says.
 * - `no effect`: accepted, because the thing it tunes does not exist here; a warning says so when it is set.
 * - `not built`: refused by name when set to anything but its default.
 */
export type FlagStatus =
  | { readonly state: "honoured" }
  | { readonly state: "no effect"; readonly reason: string }
  | { readonly state: "not built"; readonly reason: string };

export const HONOURED: FlagStatus = { state: "honoured" };
export const notBuilt = (reason: string): FlagStatus => ({ state: "not built", reason });
export const noEffect = (reason: string): FlagStatus => ({ state: "no effect", reason });
