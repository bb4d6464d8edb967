import { quote } from "../../base/quote.ts";
import { GoValueError, parseGoBool } from "./go-value.ts";

/**
 * Switches of alpha and beta features: `--feature-gates=Name=true,Other=false`. Names, stages and defaults are those of
 * etcd v3.7; `AllAlpha` and `AllBeta` switch what is not named itself.
 */
const GATES = {
  AllAlpha: { default: false, stage: "ALPHA" },
  AllBeta: { default: false, stage: "BETA" },
  CompactHashCheck: { default: false, stage: "ALPHA" },
  FastLeaseKeepAlive: { default: true, stage: "BETA" },
  InitialCorruptCheck: { default: false, stage: "ALPHA" },
  LeaseCheckpoint: { default: false, stage: "ALPHA" },
  LeaseCheckpointPersist: { default: false, stage: "ALPHA" },
  PriorityRequest: { default: false, stage: "ALPHA" },
  SetMemberLocalAddr: { default: false, stage: "ALPHA" },
  StopGRPCServiceOnDefrag: { default: false, stage: "ALPHA" },
  TxnModeWriteWithSharedBuffer: { default: true, stage: "BETA" },
} as const;

/** Gates that change what this build does; the two that switch others count as such. */
const BUILT: ReadonlySet<string> = new Set([
  "AllAlpha",
  "AllBeta",
  "CompactHashCheck",
  "FastLeaseKeepAlive",
  "InitialCorruptCheck",
  "LeaseCheckpoint",
  "LeaseCheckpointPersist",
  "SetMemberLocalAddr",
]);

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

  /** These gates with the settings of `text` on top. Throws `GoValueError` with etcd's words. */
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

  /** Gates that were changed and that nothing in this build asks for. */
  withoutEffect(): Feature[] {
    return names.filter((name) => !BUILT.has(name) && this.enabled(name) !== GATES[name].default);
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
