/** `etcdctl put` */
import type { FlagSet } from "../../base/flags.ts";
import { encodeLossless } from "../../base/lossless-text.ts";
import { ParseError, parseInt64 } from "../../base/number-text.ts";
import { KVService, PutRequest } from "../../proto/etcdserverpb.ts";
import type { CtlCommand } from "../ctl.ts";
import { EXIT, ExitError } from "../exit.ts";
import { readAll } from "../io.ts";

const NEEDS = "put command needs 1 argument and input from stdin or 2 arguments";

export const put: CtlCommand = {
  name: "put",
  usage: "[options] <key> [value]",
  short: "Writes a key",
  long: `Writes a key.

The value is the second argument or, without one, everything on standard input. A key or value that starts with a dash
goes behind "--", which ends the options:

  etcdctl put key -- -value-
  etcdctl put -- -key- value
  cat file | etcdctl put key`,
  flags: [
    { name: "lease", kind: "string", value: "0", usage: "lease to attach to the key, in hexadecimal" },
    { name: "prev-kv", kind: "bool", value: false, usage: "print the key and value that were there before" },
    { name: "ignore-value", kind: "bool", value: false, usage: "keep the value that the key has" },
    { name: "ignore-lease", kind: "bool", value: false, usage: "keep the lease that the key has" },
  ],
  async run(ctl) {
    const request = await putRequest(ctl.flags, ctl.args, () => readAll(ctl.io.stdin));
    await ctl.show("put", await ctl.call(KVService.Put, request));
  },
};

/** The request for the flags and arguments of `put`. Throws ExitError. */
export async function putRequest(
  flags: FlagSet,
  args: readonly string[],
  input: () => Promise<Uint8Array>,
): Promise<PutRequest> {
  const [key, second] = args;
  if (key === undefined) throw new ExitError(EXIT.badArgs, NEEDS);
  const ignoreValue = flags.bool("ignore-value");
  if (ignoreValue && second !== undefined) {
    throw new ExitError(EXIT.badArgs, "put command needs only 1 argument when 'ignore-value' is set");
  }
  let value: Uint8Array = Buffer.alloc(0);
  if (!ignoreValue) {
    value = second === undefined ? await input() : encodeLossless(second);
    if (second === undefined && value.length === 0) throw new ExitError(EXIT.badArgs, NEEDS);
  }
  return PutRequest.create({
    key: encodeLossless(key),
    value,
    lease: leaseOf(flags.string("lease")),
    prevKv: flags.bool("prev-kv"),
    ignoreValue,
    ignoreLease: flags.bool("ignore-lease"),
  });
}

function leaseOf(text: string): bigint {
  try {
    return parseInt64(text, 16);
  } catch (error) {
    if (!(error instanceof ParseError)) throw error;
    throw new ExitError(EXIT.badArgs, `bad lease ID (${error.message}), expecting ID in Hex`);
  }
}
