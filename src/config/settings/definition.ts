import type { Kind } from "./kinds.ts";

/**
 * One setting, defined once: flags, environment variables, file keys, `Config` and its type, `etcd --help` and the
 * tables of docs/configuration.md are all generated from it. The files beside this one hold the definitions by topic,
 * in the order of etcd's help; each setting's key is the name of its flag.
 */
export interface Setting<T = unknown, F extends string | undefined = string | undefined> extends Spec<F> {
  readonly kind: Kind<T>;
}

export interface Spec<F extends string | undefined> {
  /** Its path in `Config`; absent for settings used only inside `config/`. */
  readonly field?: F;
  /** Its key path in the file; absent: its own name. False: not available in the file. */
  readonly file?: string | false;
  /** False: available only in the file, without flag or variable. */
  readonly flag?: false;
  /** In command-line notation. */
  readonly default: string;
  /** Description for the help and the documentation. */
  readonly help: string;
  readonly bounds?: Bounds;
  /** Meaning of the value 0, in the unit of the kind. */
  readonly zeroMeans?: number;
  /** `Config` uses a smaller unit: this many of them per unit here. */
  readonly times?: number;
  /** Logged when it is set, after its name. */
  readonly deprecated?: string;
  /** Its value must not be logged. */
  readonly secret?: boolean;
  /** Absent means fully supported. */
  readonly status?: Status;
}

/** Valid numbers. The reaction to others differs, as in etcd, and is defined in `checks/` and load.ts. */
export interface Bounds {
  /** Exclusive lower bound. */
  readonly above?: number;
  readonly min?: number;
  readonly max?: number;
  /** Smaller values are replaced by this. */
  readonly raisedTo?: number;
  /** Larger values are accepted, with a warning. */
  readonly recommendedMax?: number;
  /** The reason for `above`: a setting with a reason is refused without a separate check. */
  readonly reason?: string;
}

/**
 * How this build treats a setting of etcd v3.7 that does not work as in etcd's documentation:
 * - `no effect`: accepted, because what it tunes does not exist here; setting it logs a warning.
 * - `only checked`: accepted silently, because its purpose is met without it.
 */
export interface Status {
  readonly state: "no effect" | "only checked";
  readonly reason: string;
}

export const noEffect = (reason: string): Status => ({ state: "no effect", reason });

export const onlyChecked = (reason: string): Status => ({ state: "only checked", reason });

export function setting<T, const F extends string | undefined = undefined>(
  kind: Kind<T>,
  spec: Spec<F>,
): Setting<T, F> {
  return { kind, ...spec };
}

/** An empty default of a list is an empty list; an empty text given explicitly is a list with an empty element. */
export function defaultOf<T>({ kind, default: text }: Setting<T>): T {
  return text === "" ? kind.empty : kind.parse(text, kind.empty);
}
