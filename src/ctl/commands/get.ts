/** `etcdctl get` */
import type { FlagSet } from "../../base/flags.ts";
import { encodeLossless } from "../../base/lossless-text.ts";
import {
  KVService,
  RangeRequest,
  RangeRequest_SortOrder,
  RangeRequest_SortTarget,
  RangeResponse,
} from "../../proto/etcdserverpb.ts";
import type { Ctl, CtlCommand } from "../ctl.ts";
import { badArgs, EXIT, ExitError } from "../exit.ts";
import { FIRST_KEY, FROM_KEY, prefixEnd } from "../ranges.ts";

const SORT_ORDERS: Readonly<Record<string, RangeRequest_SortOrder>> = {
  "": RangeRequest_SortOrder.NONE,
  ASCEND: RangeRequest_SortOrder.ASCEND,
  DESCEND: RangeRequest_SortOrder.DESCEND,
};
const SORT_TARGETS: Readonly<Record<string, RangeRequest_SortTarget>> = {
  "": RangeRequest_SortTarget.KEY,
  CREATE: RangeRequest_SortTarget.CREATE,
  KEY: RangeRequest_SortTarget.KEY,
  MODIFY: RangeRequest_SortTarget.MOD,
  VALUE: RangeRequest_SortTarget.VALUE,
  VERSION: RangeRequest_SortTarget.VERSION,
};

export const get: CtlCommand = {
  name: "get",
  usage: "[options] <key> [range_end]",
  short: "Reads a key or a range of keys",
  flags: [
    { name: "consistency", kind: "string", value: "l", usage: "linearizable (l) or serializable (s)" },
    { name: "order", kind: "string", value: "", usage: "order of the results: ASCEND or DESCEND" },
    { name: "sort-by", kind: "string", value: "", usage: "what to sort by: CREATE, KEY, MODIFY, VALUE or VERSION" },
    { name: "limit", kind: "int", value: 0, usage: "most results that are wanted" },
    { name: "prefix", kind: "bool", value: false, usage: "read all keys that start with the key" },
    { name: "from-key", kind: "bool", value: false, usage: "read all keys from the key on, in byte order" },
    { name: "rev", kind: "int", value: 0, usage: "revision to read at" },
    { name: "keys-only", kind: "bool", value: false, usage: "read no values" },
    { name: "count-only", kind: "bool", value: false, usage: "read only how many there are" },
    { name: "print-value-only", kind: "bool", value: false, usage: 'print only values, in the "simple" format' },
    { name: "min-create-rev", kind: "int", value: 0, usage: "lowest create revision" },
    { name: "max-create-rev", kind: "int", value: 0, usage: "highest create revision" },
    { name: "min-mod-rev", kind: "int", value: 0, usage: "lowest modification revision" },
    { name: "max-mod-rev", kind: "int", value: 0, usage: "highest modification revision" },
    { name: "stream", kind: "bool", value: false, usage: "receive the results in pieces (the RangeStream call)" },
  ],
  async run(ctl) {
    const { flags } = ctl;
    const request = rangeRequest(flags, ctl.args);
    const response = flags.bool("stream") ? await streamed(ctl, request) : await ctl.call(KVService.Range, request);
    if (flags.bool("count-only") && ctl.format !== "fields") {
      throw badArgs("--count-only is only for `--write-out=fields`");
    }
    if (flags.bool("print-value-only")) {
      if (ctl.format !== "simple") throw badArgs("print-value-only is only for `--write-out=simple`");
      ctl.showValuesOnly();
    }
    await ctl.show("get", response);
  },
};

/** The request for the flags and arguments of `get`. Throws ExitError. */
export function rangeRequest(flags: FlagSet, args: readonly string[]): RangeRequest {
  const badFeature = (message: string) => new ExitError(EXIT.badFeature, message);
  const [first, end] = args;
  if (first === undefined) throw badArgs("get command needs one argument as key and an optional argument as range_end");
  const prefix = flags.bool("prefix");
  const fromKey = flags.bool("from-key");
  if (prefix && fromKey) throw badArgs("`--prefix` and `--from-key` cannot be set at the same time, choose one");
  if (flags.bool("keys-only") && flags.bool("count-only")) {
    throw badArgs("`--keys-only` and `--count-only` cannot be set at the same time, choose one");
  }
  const serializable = isSerializable(flags.string("consistency"));
  if (end !== undefined && (prefix || fromKey)) {
    throw badArgs("too many arguments, only accept one argument when `--prefix` or `--from-key` is set");
  }
  const sortOrder = SORT_ORDERS[flags.string("order").toUpperCase()];
  if (sortOrder === undefined) throw badFeature(`bad sort order ${flags.string("order")}`);
  const sortTarget = SORT_TARGETS[flags.string("sort-by").toUpperCase()];
  if (sortTarget === undefined) throw badFeature(`bad sort target ${flags.string("sort-by")}`);
  const [minCreate, maxCreate] = [flags.number("min-create-rev"), flags.number("max-create-rev")];
  if (maxCreate > 0 && minCreate > maxCreate) {
    throw badFeature(`getMinCreateRev(=${minCreate}) > getMaxCreateRev(=${maxCreate})`);
  }
  const [minMod, maxMod] = [flags.number("min-mod-rev"), flags.number("max-mod-rev")];
  if (maxMod > 0 && minMod > maxMod) throw badFeature(`getMinModRev(=${minMod}) > getMaxModRev(=${maxMod})`);
  return RangeRequest.create({
    ...rangeOf(first, end, prefix, fromKey),
    serializable,
    limit: flags.number("limit"),
    revision: Math.max(0, flags.number("rev")),
    // Results are in ascending key order anyway, and sorting prevents the server from stopping early.
    sortOrder: isKeyOrder(sortTarget, sortOrder) ? RangeRequest_SortOrder.NONE : sortOrder,
    sortTarget: sortTarget,
    keysOnly: flags.bool("keys-only"),
    countOnly: flags.bool("count-only"),
    minCreateRevision: Math.max(0, minCreate),
    maxCreateRevision: Math.max(0, maxCreate),
    minModRevision: Math.max(0, minMod),
    maxModRevision: Math.max(0, maxMod),
  });
}

const isKeyOrder = (target: RangeRequest_SortTarget, order: RangeRequest_SortOrder) =>
  target === RangeRequest_SortTarget.KEY && order === RangeRequest_SortOrder.ASCEND;

/** Key and range end for a key with `--prefix` or `--from-key`; an empty key then means every key. */
export function rangeOf(
  first: string,
  end: string | undefined,
  prefix: boolean,
  fromKey: boolean,
): { readonly key: Uint8Array; readonly rangeEnd: Uint8Array } {
  const key = encodeLossless(first);
  if ((prefix || fromKey) && key.length === 0) return { key: FIRST_KEY, rangeEnd: FROM_KEY };
  if (prefix) return { key, rangeEnd: prefixEnd(key) };
  if (fromKey) return { key, rangeEnd: FROM_KEY };
  return { key, rangeEnd: end === undefined ? Buffer.alloc(0) : encodeLossless(end) };
}

/** Throws ExitError. */
export function isSerializable(consistency: string): boolean {
  if (consistency === "s" || consistency === "l") return consistency === "s";
  throw new ExitError(EXIT.badFeature, `unknown consistency flag "${consistency}"`);
}

async function streamed(ctl: Ctl, request: RangeRequest): Promise<RangeResponse> {
  const cluster = await ctl.cluster();
  const whole = RangeResponse.create();
  const limits = { timeoutMs: ctl.timeoutMs };
  for await (const { rangeResponse } of cluster.responses(KVService.RangeStream, request, limits)) {
    if (rangeResponse === undefined) continue;
    // Only the last part has header, count and `more`.
    whole.header = rangeResponse.header ?? whole.header;
    whole.more = rangeResponse.more;
    whole.count = rangeResponse.count || whole.count;
    whole.kvs.push(...rangeResponse.kvs);
  }
  return whole;
}
