/**
 * Arguments and environment variables as bytes. Node decodes them as UTF-8 and replaces invalid bytes by U+FFFD, so
 * that a key of other bytes would silently become another key. Linux still has the bytes, in /proc.
 */
import { decodeLossless } from "../base/lossless-text.ts";
import { badArgs } from "./exit.ts";

const REPLACED = "\ufffd";

/** Reads a file of /proc/self; throws where there is no /proc. */
export type ReadProc = (name: "cmdline" | "environ") => Uint8Array;

/** The arguments as lossless text. Throws ExitError when bytes were lost and cannot be recovered. */
export function trueArguments(args: readonly string[], readProc: ReadProc): readonly string[] {
  const damaged = args.findIndex((arg) => arg.includes(REPLACED));
  if (damaged < 0) return args;
  // Node's own arguments come first.
  const whole = records(readProc, "cmdline").slice(-args.length);
  if (whole.length === args.length && whole.every((bytes, i) => isOf(bytes, args[i]!)))
    return whole.map(decodeLossless);
  throw badArgs(
    `argument ${damaged + 1} is not UTF-8, and its bytes cannot be had on this system: ` +
      'give a value on standard input, or keys in a transaction as "\\xff" (etcdctl txn)',
  );
}

/** The variables; those that were not UTF-8 as lossless text, if their bytes are available. */
export function trueEnvironment(
  env: Readonly<Record<string, string | undefined>>,
  readProc: ReadProc,
): Readonly<Record<string, string | undefined>> {
  const damaged = Object.entries(env).filter(([, value]) => value?.includes(REPLACED));
  if (damaged.length === 0) return env;
  const whole = { ...env };
  for (const record of records(readProc, "environ")) {
    const equals = record.indexOf("=");
    const name = record.subarray(0, equals).toString();
    const value = record.subarray(equals + 1);
    if (damaged.some(([damagedName, text]) => damagedName === name && isOf(value, text!))) {
      whole[name] = decodeLossless(value);
    }
  }
  return whole;
}

/** Whether Node decoded these bytes to `text`. */
const isOf = (bytes: Buffer, text: string) => bytes.toString() === text;

/** Each ends with a zero byte. */
function records(readProc: ReadProc, name: "cmdline" | "environ"): Buffer[] {
  let bytes: Buffer;
  try {
    bytes = Buffer.from(readProc(name));
  } catch {
    return [];
  }
  const found: Buffer[] = [];
  for (let start = 0; start < bytes.length; ) {
    const zero = bytes.indexOf(0, start);
    const end = zero < 0 ? bytes.length : zero;
    found.push(bytes.subarray(start, end));
    start = end + 1;
  }
  return found;
}
