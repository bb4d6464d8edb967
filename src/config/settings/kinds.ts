import { quote } from "../../base/quote.ts";
import { FeatureGates } from "../values/feature-gates.ts";
import { type GoIntegerType, GoValueError, parseGoBool, parseGoDuration, parseGoInteger } from "../values/go-value.ts";
import { parseUrls, type Url, urlTexts } from "../values/url.ts";

/**
 * The kinds of settings: how a text, and a value of the file, is converted. `text`, `bool`, Go's integers and
 * `duration` are Go's flag types; durations are in milliseconds here. The others are etcd's: comma-separated lists
 * (`urls`, `origins`, `hosts`, `set`, `list`), one or several of a few words (`choice`, `choices`), and `features`. To
 * add a kind, add an object here.
 */
export interface Kind<T, G extends GoType = GoType> {
  readonly name: string;
  /** Go's type of the file's field, as named in error texts. */
  readonly goType: G;
  /** The value before anything is set, also for an empty default. */
  readonly empty: T;
  /**
   * From a flag or a variable; `before` is the current value. Throws `GoValueError` with the text of Go's flag package.
   */
  parse(text: string, before: T): T;
  /** From the file, after the type was checked. Throws `GoValueError`. */
  fromFile(value: GoTypes[G], before: T): T;
}

/** The Go types of the file's fields, and their types here. */
export interface GoTypes {
  readonly string: string;
  readonly bool: boolean;
  readonly int: number;
  readonly int64: number;
  readonly uint: number;
  readonly uint64: number;
  readonly uint32: number;
  readonly "time.Duration": number;
  readonly "[]string": readonly string[];
  readonly "config.V2DeprecationEnum": string;
}

export type GoType = keyof GoTypes;

const asItStands = <T>(value: T): T => value;

export const text: Kind<string, "string"> = {
  name: "text",
  goType: "string",
  empty: "",
  parse: asItStands,
  fromFile: asItStands,
};

export const bool: Kind<boolean, "bool"> = {
  name: "bool",
  goType: "bool",
  empty: false,
  parse: parseGoBool,
  fromFile: asItStands,
};

function integer<N extends GoIntegerType>(name: N): Kind<number, N> {
  return { name, goType: name, empty: 0, parse: (value) => parseGoInteger(value, name), fromFile: asItStands };
}

export const int = integer("int");
export const int64 = integer("int64");
export const uint = integer("uint");
export const uint64 = integer("uint64");

/** etcd's own flag type, which shows strconv's error unchanged. */
export const uint32: Kind<number, "uint32"> = {
  ...integer("uint32"),
  parse(value) {
    try {
      return parseGoInteger(value, "uint32");
    } catch (error) {
      const why = (error as Error).message === "parse error" ? "invalid syntax" : (error as Error).message;
      throw new GoValueError(`strconv.ParseUint: parsing ${quote(value)}: ${why}`);
    }
  },
};

const NANOSECONDS_PER_MS = 1e6;

export const duration: Kind<number, "time.Duration"> = {
  name: "duration",
  goType: "time.Duration",
  empty: 0,
  /** Go's flag package hides why a duration is invalid. */
  parse(value) {
    try {
      return parseGoDuration(value);
    } catch {
      throw new GoValueError("parse error");
    }
  },
  fromFile: (nanoseconds) => nanoseconds / NANOSECONDS_PER_MS,
};

/** Checked, sorted, without duplicates. An empty text keeps the current list, as in etcd's flag. */
export const urls: Kind<readonly Url[], "string"> = {
  name: "urls",
  goType: "string",
  empty: [],
  parse: (value, before) => (value === "" ? before : parseUniqueUrls(value)),
  fromFile: (value, before) => (value === "" ? before : parseUrls(value)),
};

/** URLs, or `*` for all. */
export const origins: Kind<readonly string[], "string"> = {
  name: "origins",
  goType: "string",
  empty: [],
  parse: (value) => parseOrigins(value),
  fromFile: (value, before) => (value === "" ? before : parseOrigins(value)),
};

/** Sorted, without duplicates. */
export const set: Kind<readonly string[], "[]string"> = {
  name: "set",
  goType: "[]string",
  empty: [],
  parse: (value) => parseSet(value),
  fromFile: asItStands,
};

/** A set that is a single text in the file, too. */
export const hosts: Kind<readonly string[], "string"> = {
  name: "set",
  goType: "string",
  empty: [],
  parse: (value) => parseSet(value),
  fromFile: (value, before) => (value === "" ? before : parseSet(value)),
};

/** As given. */
export const list: Kind<readonly string[], "[]string"> = {
  name: "list",
  goType: "[]string",
  empty: [],
  parse: (value) => value.split(","),
  fromFile: asItStands,
};

/** One of a few words. An unknown word in the file is detected by the final validation. */
export function choice<const C extends string>(choices: readonly C[]): Kind<C, "string"> {
  return {
    name: "choice",
    goType: "string",
    empty: choices[0]!,
    parse(value) {
      const found = choices.find((word) => word === value);
      if (found === undefined) throw new GoValueError("invalid value");
      return found;
    },
    fromFile: (value, before) => (value === "" ? before : (value as C)),
  };
}

/** Several of a few words; the file's value is ignored and replaced by `enforced`. */
export function choices(words: readonly string[], enforced: string): Kind<string, "config.V2DeprecationEnum"> {
  return {
    name: "choices",
    goType: "config.V2DeprecationEnum",
    empty: enforced,
    parse(value) {
      for (const part of value.split(",")) {
        if (!words.includes(part)) throw new GoValueError(`invalid value ${quote(part)}`);
      }
      return value;
    },
    fromFile: () => enforced,
  };
}

/** `Name=true,Other=false`; for a repeated name the last value wins. */
export const features: Kind<FeatureGates, "string"> = {
  name: "features",
  goType: "string",
  empty: new FeatureGates(),
  parse: (value, before) => before.with(value),
  fromFile: (value, before) => before.with(value),
};

function parseUniqueUrls(value: string): Url[] {
  const seen = new Set<string>();
  return parseUrls(value).filter((url) => !seen.has(url.text) && seen.add(url.text));
}

const parseOrigins = (value: string): string[] => (value === "*" ? ["*"] : urlTexts(parseUniqueUrls(value)));

/** Ordered by bytes; the empty text is an element too. */
function parseSet(value: string): string[] {
  return [...new Set(value.split(","))].sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)));
}
