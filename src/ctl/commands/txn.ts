/** `etcdctl txn`: a transaction as lines of text, read from standard input. */
import { findCommand, type Invocation } from "../../base/command-tree.ts";
import { FlagError, FlagSet } from "../../base/flags.ts";
import { decodeLossless, encodeLossless } from "../../base/lossless-text.ts";
import { clampToSafe, ParseError, parseInt64 } from "../../base/number-text.ts";
import { quote, unquotePrefix } from "../../base/quote.ts";
import {
  Compare,
  Compare_CompareResult,
  Compare_CompareTarget,
  KVService,
  RequestOp,
} from "../../proto/etcdserverpb.ts";
import type { Ctl, CtlCommand } from "../ctl.ts";
import { badArgs, EXIT, ExitError } from "../exit.ts";
import { type Io, readLines } from "../io.ts";
import { words } from "../words.ts";
import { del, deleteRequest, warnOfRange } from "./del.ts";
import { get, rangeRequest } from "./get.ts";
import { put, putRequest } from "./put.ts";

export const txn: CtlCommand = {
  name: "txn",
  usage: "[options]",
  short: "Runs several requests as one transaction",
  long: `Runs several requests as one transaction, read from standard input: first the conditions, one a line; after an empty
line the requests for the case that all of them hold; after another the requests for the case that one does not; and an
empty line.

A condition compares version, create revision, mod revision, value or lease of a key: ver("key") > "2", c("key") = "0",
mod("key") < "9", val("key") != "text", lease("key") = "694d77aa9e38260f". A request is a get, put or del as on the
command line.`,
  example: `etcdctl txn -i
mod("key1") > "0"

put key1 "overwritten"

put key1 "created"
put key2 "some extra key"
`,
  flags: [{ name: "interactive", shorthand: "i", kind: "bool", value: false, usage: "say what is expected next" }],
  async run(ctl) {
    if (ctl.args.length > 0) throw badArgs("txn command does not accept argument");
    const cluster = await ctl.cluster();
    const lines = readLines(ctl.io.stdin);
    const prompt = (text: string) => {
      if (ctl.flags.bool("interactive")) ctl.io.out(`${text}\n`);
    };
    prompt("compares:");
    const compare = await section(lines, (line) => parseCompare(line));
    prompt("success requests (get, put, del):");
    const success = await section(lines, (line) => parseRequest(line, ctl.io));
    prompt("failure requests (get, put, del):");
    const failure = await section(lines, (line) => parseRequest(line, ctl.io));
    await ctl.show(
      "txn",
      await cluster.call(KVService.Txn, { compare, success, failure }, { timeoutMs: ctl.timeoutMs }),
    );
  },
};

const invalid = (message: string) => new ExitError(EXIT.invalidInput, message);

/** Parses the lines up to an empty one. */
async function section<T>(lines: AsyncGenerator<Buffer, Buffer, void>, parse: (line: string) => T | Promise<T>) {
  const parsed: Awaited<T>[] = [];
  for (;;) {
    const next = await lines.next();
    if (next.done) throw invalid("EOF");
    const line = decodeLossless(next.value).trim();
    if (line === "") return parsed;
    parsed.push(await parse(line));
  }
}

const RESULTS: ReadonlyMap<string, Compare_CompareResult> = new Map([
  ["=", Compare_CompareResult.EQUAL],
  ["!=", Compare_CompareResult.NOT_EQUAL],
  [">", Compare_CompareResult.GREATER],
  ["<", Compare_CompareResult.LESS],
]);

/** `mod("key") > "0"`. Throws ExitError. */
function parseCompare(line: string): Compare {
  const paren = line.indexOf("(");
  if (paren < 0) throw invalid(`malformed comparison: ${line}`);
  const target = line.slice(0, paren);
  const key = unquotePrefix(line.slice(paren + 1));
  const [, op = "", tail = ""] = /^\)\s*(\S+)\s+(.*)$/s.exec(key?.rest ?? "") ?? [];
  const value = unquotePrefix(tail);
  if (key === undefined || value === undefined) {
    const got = `${target}(${quote(key?.value ?? "")}) ${op} ${quote(value?.value ?? "")}`;
    throw invalid(`malformed comparison: ${line}; got ${got}`);
  }
  const result = RESULTS.get(op);
  if (result === undefined) throw invalid(`malformed comparison: ${line} (unknown operator ${op})`);
  const base = { key: key.value, result };
  const number = (radix: 10 | 16) => {
    try {
      return parseInt64(value.value.toString(), radix);
    } catch (error) {
      if (error instanceof ParseError) throw invalid(`invalid txn compare request: ${line}`);
      throw error;
    }
  };
  switch (target) {
    case "ver":
    case "version":
      return Compare.create({ ...base, target: Compare_CompareTarget.VERSION, version: clampToSafe(number(10)) });
    case "c":
    case "create":
      return Compare.create({ ...base, target: Compare_CompareTarget.CREATE, createRevision: clampToSafe(number(10)) });
    case "m":
    case "mod":
      return Compare.create({ ...base, target: Compare_CompareTarget.MOD, modRevision: clampToSafe(number(10)) });
    case "val":
    case "value":
      return Compare.create({ ...base, target: Compare_CompareTarget.VALUE, value: value.value });
    case "lease":
      return Compare.create({ ...base, target: Compare_CompareTarget.LEASE, lease: number(16) });
    default:
      throw invalid(`malformed comparison: ${line} (unknown target ${target})`);
  }
}

/** The commands allowed in a line. */
const LINES: CtlCommand = { name: "", short: "", commands: [get, put, del] };

async function parseRequest(line: string, io: Io): Promise<RequestOp> {
  const [word = "", ...rest] = words(line);
  if (rest.length === 0) throw invalid(`invalid txn compare request: ${line}`);
  const command = findCommand(LINES, word);
  const flags = new FlagSet(command?.flags ?? []);
  let args: Invocation<Ctl>["args"];
  try {
    if (command === undefined) throw new FlagError(word);
    ({ args } = flags.parse(rest));
  } catch (error) {
    if (error instanceof FlagError) throw invalid(`invalid txn request: ${line}`);
    throw error;
  }
  if (command === get) return RequestOp.create({ requestRange: rangeRequest(flags, args) });
  if (command === put) {
    // The rest of standard input belongs to the transaction, so a value must be in its line.
    const noInput = () => Promise.resolve(encodeLossless(""));
    return RequestOp.create({ requestPut: await putRequest(flags, args, noInput) });
  }
  const requestDeleteRange = deleteRequest(flags, args);
  await warnOfRange(flags, args, io);
  return RequestOp.create({ requestDeleteRange });
}
