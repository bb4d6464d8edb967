import type { Kind } from "./kinds.ts";

/**
 * What one setting is, written once: flags, environment variables, keys of the file, `Config` and its type, `etcd --help`
 * and the tables of docs/configuration.md are all made from it. The files beside this one hold the definitions by theme,
 * in the order of etcd's help; each setting stands under its name, which is the name of its flag.
 */
export interface Setting<T = unknown, F extends string | undefined = string | undefined> extends Spec<F> {
  readonly kind: Kind<T>;
}

export interface Spec<F extends string | undefined> {
  /** Where its value stands in `Config`, as a path; absent for one that only the code of `config/` looks at. */
  readonly field?: F;
  /** Where it stands in the file, as a path of keys; absent: under its own name. False: the file does not have it. */
  readonly file?: string | false;
  /** False: only the file has it, and no flag or variable. */
  readonly flag?: false;
  /** In the notation of the command line. */
  readonly default: string;
  /** What it does, for the help and the documentation. */
  readonly help: string;
  readonly bounds?: Bounds;
  /** What a value of 0 stands for, in the unit of the kind. */
  readonly zeroMeans?: number;
  /** `Config` has the value in a smaller unit: so many of them are one here. */
  readonly times?: number;
  /** Said in the log when it is set, after its name. */
  readonly deprecated?: string;
  /** Its value must not appear in a log. */
  readonly secret?: boolean;
  /** Absent means honoured. */
  readonly status?: Status;
}

/** Numbers that make sense. What happens beyond them differs, as in etcd, and is the matter of `checks/` and load.ts. */
export interface Bounds {
  /** Every value above it is good, itself not. */
  readonly above?: number;
  readonly min?: number;
  readonly max?: number;
  /** Smaller values are taken for it. */
  readonly raisedTo?: number;
  /** Larger values are taken, with a warning. */
  readonly recommendedMax?: number;
  /** Why `above` must hold: a setting with a reason is refused without a check of its own. */
  readonly reason?: string;
}

/**
 * How this build treats a setting that etcd v3.7 has, where it does not do what etcd's documentation says:
 * - `no effect`: accepted, because the thing it tunes does not exist here; a warning says so when it is set.
 * - `not built`: refused by name when set to anything but its default.
 * - `only checked`: accepted silently, because what it is for is reached without it.
 */
export interface Status {
  readonly state: "no effect" | "not built" | "only checked";
  readonly reason: string;
}

export const notBuilt = (reason: string): Status => ({ state: "not built", reason });
export const noEffect = (reason: string): Status => ({ state: "no effect", reason });

export const onlyChecked = (reason: string): Status => ({ state: "only checked", reason });

export function setting<T, const F extends string | undefined = undefined>(
  kind: Kind<T>,
  spec: Spec<F>,
): Setting<T, F> {
  return { kind, ...spec };
}

/** An empty default of a list is a list without members; the empty text given by hand is one with an empty member. */
export function defaultOf<T>({ kind, default: text }: Setting<T>): T {
  return text === "" ? kind.empty : kind.parse(text, kind.empty);
}
