import { quote } from "../../base/quote.ts";
import { GoValueError, parseGoBool } from "./go-value.ts";

interface Gate {
  readonly default: boolean;
  readonly stage: "ALPHA" | "BETA";
  /** Its effect in etcd, for the documentation. */
  readonly help: string;
  /** Absent: it has the same effect here. Otherwise the reason why it has none, which is logged when it is set. */
  readonly noEffect?: string;
}

/**
 * Switches of alpha and beta features: `--feature-gates=Name=true,Other=false`. Names, stages and defaults are those of
 * etcd v3.7; `AllAlpha` and `AllBeta` switch the gates that are not named.
 */
const GATES = {
  AllAlpha: { default: false, stage: "ALPHA", help: "All gates of the stage ALPHA that are not named themselves." },
  AllBeta: { default: false, stage: "BETA", help: "All gates of the stage BETA that are not named themselves." },
  CompactHashCheck: {
    default: false,
    stage: "ALPHA",
    help: "The leader compares the members' hashes of compactions, every --compact-hash-check-time.",
  },
  FastLeaseKeepAlive: {
    default: true,
    stage: "BETA",
    help: "The leader renews a lease that it knows without waiting for entries that are not applied yet.",
  },
  InitialCorruptCheck: {
    default: false,
    stage: "ALPHA",
    help: "A member with data compares it with the others' before it serves.",
  },
  LeaseCheckpoint: {
    default: false,
    stage: "ALPHA",
    help: "The leader tells the other members the remaining time of long leases, so that a new leader does not restart them.",
  },
  LeaseCheckpointPersist: {
    default: false,
    stage: "ALPHA",
    help: "What leases have left is kept in the data directory. Needs LeaseCheckpoint.",
  },
  PriorityRequest: {
    default: false,
    stage: "ALPHA",
    help: "Under overload some requests, such as LeaseRevoke, are let in before others.",
    noEffect: "not built",
  },
  SetMemberLocalAddr: {
    default: false,
    stage: "ALPHA",
    help: "Other members are dialled from the first address in --initial-advertise-peer-urls that is not loopback.",
  },
  StopGRPCServiceOnDefrag: {
    default: false,
    stage: "ALPHA",
    help: "A member does not serve clients while it defragments.",
    noEffect: "not built",
  },
  TxnModeWriteWithSharedBuffer: {
    default: true,
    stage: "BETA",
    help: "Checks of a write transaction share its buffer.",
    noEffect: "there is no such buffer",
  },
} as const satisfies Record<string, Gate>;

export type Feature = keyof typeof GATES;

const isFeature = (name: string): name is Feature => Object.hasOwn(GATES, name);
const names = Object.keys(GATES) as Feature[];

export class FeatureGates {
  readonly #values: ReadonlyMap<Feature, boolean>;

  constructor(values: ReadonlyMap<Feature, boolean> = new Map()) {
    this.#values = values;
    Object.freeze(this);
  }

  enabled(feature: Feature): boolean {
    return this.#values.get(feature) ?? GATES[feature].default;
  }

  /** These gates with the settings in `text` applied. Throws `GoValueError` with etcd's words. */
  with(text: string): FeatureGates {
    const settings = parseSettings(text);
    const values = new Map(this.#values);
    for (const [name, value] of settings) values.set(name, value);
    for (const [name, value] of settings) {
      if (name !== "AllAlpha" && name !== "AllBeta") continue;
      const stage = GATES[name].stage;
      for (const other of names) if (GATES[other].stage === stage && !values.has(other)) values.set(other, value);
    }
    return new FeatureGates(values);
  }

  /** Changed gates that have no effect in this build. */
  withoutEffect(): Feature[] {
    return names.filter((name) => {
      const gate: Gate = GATES[name];
      return gate.noEffect !== undefined && this.enabled(name) !== gate.default;
    });
  }

  /** Every gate with its stage, for the metrics. */
  list(): { readonly name: Feature; readonly stage: string; readonly enabled: boolean }[] {
    return names.map((name) => ({ name, stage: GATES[name].stage, enabled: this.enabled(name) }));
  }

  /** The gates that were set, as `A=true,B=false`. */
  toString(): string {
    return [...this.#values]
      .map(([name, value]) => `${name}=${value}`)
      .sort()
      .join(",");
  }
}

/** All gates, for the documentation. */
export const gates: readonly (Gate & { readonly name: Feature })[] = names.map((name) => ({ name, ...GATES[name] }));

/** One line for each gate, as etcd's help lists them. */
export const featureHelp: readonly string[] = names.map(
  (name) => `${name}=true|false (${GATES[name].stage} - default=${GATES[name].default})`,
);

function parseSettings(text: string): Map<Feature, boolean> {
  const settings = new Map<Feature, boolean>();
  for (const pair of text.split(",")) {
    if (pair === "") continue;
    const equals = pair.indexOf("=");
    const name = (equals < 0 ? pair : pair.slice(0, equals)).trim();
    if (equals < 0) throw new GoValueError(`missing bool value for ${name}`);
    const value = parseValue(name, pair.slice(equals + 1).trim());
    if (!isFeature(name)) throw new GoValueError(`unrecognized feature gate: ${name}`);
    settings.set(name, value);
  }
  return settings;
}

function parseValue(name: string, text: string): boolean {
  try {
    return parseGoBool(text);
  } catch {
    const why = `strconv.ParseBool: parsing ${quote(text)}: invalid syntax`;
    throw new GoValueError(`invalid value of ${name}=${text}, err: ${why}`);
  }
}
