/** JSON numbers as protojson accepts them for integers, in time linear in their length. Pure. */
import type { FieldKind } from "./schema.ts";

const RANGES: Partial<Record<FieldKind, readonly [bigint, bigint]>> = {
  int32: [-(2n ** 31n), 2n ** 31n - 1n],
  uint32: [0n, 2n ** 32n - 1n],
  int64: [-(2n ** 63n), 2n ** 63n - 1n],
  uint64: [0n, 2n ** 64n - 1n],
};
/** More than any 64-bit integer has. */
const DIGITS_MAX = 20;

/** The integer value of a JSON number, in any notation; undefined when it is not an integer or does not fit. */
export function integer(text: string, kind: FieldKind): bigint | undefined {
  const [, sign = "", whole = "", decimals = "", exponent = "0"] =
    /^(-?)(\d+)(?:\.(\d+))?(?:[eE]([-+]?\d+))?$/.exec(text) ?? [];
  const digits = whole === "0" ? "" : whole;
  const fraction = withoutLastZeros(decimals);
  const shift = Number(exponent);
  let number: string;
  if (digits === "" && fraction === "") number = "0";
  else if (shift >= 0) {
    if (fraction.length > shift || digits.length + shift > DIGITS_MAX) return undefined;
    number = digits + fraction.padEnd(shift, "0");
  } else {
    const point = digits.length + shift;
    if (fraction !== "" || point < 0 || /[1-9]/.test(digits.slice(point))) return undefined;
    number = digits.slice(0, point);
    // The remainder of "0.5e-1" and similar: Go does not accept zero digits as a number.
    if (number === "" || number.length > DIGITS_MAX) return undefined;
  }
  const value = BigInt(sign + number);
  const [least, most] = RANGES[kind]!;
  return value < least || value > most ? undefined : value;
}

/** The number at the start of a string, the required form for more than 53 bits; undefined when there is none. */
export function numberAtStart(text: string): string | undefined {
  // Leading and trailing white space is refused, although text after an inner space is ignored.
  if (text.trim() !== text) return undefined;
  return /^-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][-+]?\d+)?(?![-+._a-zA-Z0-9])/.exec(text)?.[0];
}

function withoutLastZeros(digits: string): string {
  let end = digits.length;
  while (end > 0 && digits.charCodeAt(end - 1) === 0x30) end--;
  return digits.slice(0, end);
}
