/** `etcdctl del` */
import type { FlagSet } from "../../base/flags.ts";
import { quote } from "../../base/quote.ts";
import { DeleteRangeRequest, KVService } from "../../proto/etcdserverpb.ts";
import type { CtlCommand } from "../ctl.ts";
import { EXIT, ExitError } from "../exit.ts";
import type { Io } from "../io.ts";
import { rangeOf } from "./get.ts";

const WARNING_MS = 2_000;

export const del: CtlCommand = {
  name: "del",
  usage: "[options] <key> [range_end]",
  short: "Deletes a key or a range of keys",
  flags: [
    { name: "prefix", kind: "bool", value: false, usage: "delete all keys that start with the key" },
    { name: "prev-kv", kind: "bool", value: false, usage: "print what was deleted" },
    { name: "from-key", kind: "bool", value: false, usage: "delete all keys from the key on, in byte order" },
    { name: "range", kind: "bool", value: false, usage: "delete a range without a pause to think again" },
  ],
  async run(ctl) {
    const request = deleteRequest(ctl.flags, ctl.args);
    await warnOfRange(ctl.flags, ctl.args, ctl.io);
    await ctl.show("del", await ctl.call(KVService.DeleteRange, request));
  },
};

/** The request for the flags and arguments of `del`. Throws ExitError. */
export function deleteRequest(flags: FlagSet, args: readonly string[]): DeleteRangeRequest {
  const [first, end] = args;
  if (first === undefined || args.length > 2) {
    throw new ExitError(EXIT.badArgs, "del command needs one argument as key and an optional argument as range_end");
  }
  const prefix = flags.bool("prefix");
  const fromKey = flags.bool("from-key");
  if (prefix && fromKey) {
    throw new ExitError(EXIT.badArgs, "`--prefix` and `--from-key` cannot be set at the same time, choose one");
  }
  if (end !== undefined && (prefix || fromKey)) {
    const problem = "too many arguments, only accept one argument when `--prefix` or `--from-key` is set";
    throw new ExitError(EXIT.badArgs, problem);
  }
  return DeleteRangeRequest.create({ ...rangeOf(first, end, prefix, fromKey), prevKv: flags.bool("prev-kv") });
}

/** Gives the user two seconds to cancel a range deletion. */
export async function warnOfRange(flags: FlagSet, args: readonly string[], io: Io): Promise<void> {
  const [first, end] = args;
  if (end === undefined || flags.bool("range")) return;
  io.err(
    `Warning: Keys between ${quote(first!)} and ${quote(end)} will be deleted. ` +
      "Please interrupt the command within next 2 seconds to cancel. " +
      "You can provide `--range` flag to avoid the delay.\n",
  );
  await new Promise<void>((resolve) => io.clock.after(WARNING_MS, resolve));
}
