/** `etcdctl watch`: events of a key or a range, printed or passed to a program. */
import { type Flag, FlagError, FlagSet } from "../../base/flags.ts";
import { decodeLossless } from "../../base/lossless-text.ts";
import { quote } from "../../base/quote.ts";
import type { WatchCreateRequest, WatchResponse } from "../../proto/etcdserverpb.ts";
import type { Cluster } from "../connection.ts";
import type { Ctl, CtlCommand } from "../ctl.ts";
import { badArgs, describeError, EXIT, ExitError } from "../exit.ts";
import { readLines } from "../io.ts";
import { describeEnd } from "../program-end.ts";
import { cancelReason, WatchStream } from "../watch-stream.ts";
import { words } from "../words.ts";
import { rangeOf } from "./get.ts";

const FLAGS: readonly Flag[] = [
  { name: "interactive", shorthand: "i", kind: "bool", value: false, usage: "read watches from standard input" },
  { name: "prefix", kind: "bool", value: false, usage: "watch all keys that start with the key" },
  { name: "rev", kind: "int", value: 0, usage: "revision to start at" },
  { name: "prev-kv", kind: "bool", value: false, usage: "print what was there before each event" },
  { name: "time", kind: "bool", value: false, usage: "print when changes arrived, above them (not in etcdctl)" },
  { name: "progress-notify", kind: "bool", value: false, usage: "let the server tell how far an idle watch is" },
];

export const watch: CtlCommand = {
  name: "watch",
  usage: "[options] [key or prefix] [range_end] [--] [exec-command arg1 arg2 ...]",
  short: "Prints changes as they happen, or runs a program for each",
  long: `Prints changes as they happen, or runs a program for each.

Key and range end may also come from ETCDCTL_WATCH_KEY and ETCDCTL_WATCH_RANGE_END. A program after "--" finds the event
in ETCD_WATCH_REVISION, ETCD_WATCH_EVENT_TYPE, ETCD_WATCH_KEY and ETCD_WATCH_VALUE.

In interactive mode each line of standard input is "watch" with options and arguments as above, or "progress".`,
  flags: FLAGS,
  async run(ctl) {
    const { env } = ctl.io;
    const fromEnv = { key: env["ETCDCTL_WATCH_KEY"] ?? "", end: env["ETCDCTL_WATCH_RANGE_END"] ?? "" };
    if (fromEnv.key === "" && fromEnv.end !== "") {
      throw badArgs(`ETCDCTL_WATCH_KEY is empty but got ETCDCTL_WATCH_RANGE_END=${quote(fromEnv.end)}`);
    }
    if (ctl.flags.bool("time") && MACHINE_FORMATS.has(ctl.flags.string("write-out"))) {
      throw badArgs("--time is for people: it does not go with --write-out=json or protobuf");
    }
    if (ctl.flags.bool("interactive")) return interactive(ctl, fromEnv);
    const { args, invocation } = ctl;
    if (fromEnv.key !== "" && (invocation.dash ?? args.length) > 0) throw badArgs(CONFLICT);
    const target = targetOf(args, invocation.dash, fromEnv);
    const cluster = await ctl.cluster();
    const request = watchRequest(ctl.flags, target.keys, ctl.flags.bool("progress-notify"));
    await print(ctl, new WatchStream(cluster, ctl.io.clock, request), target.program);
    throw new ExitError(EXIT.interrupted, "watch is canceled by the server");
  },
};

interface FromEnv {
  readonly key: string;
  readonly end: string;
}

interface Target {
  /** A key and optionally a range end. */
  readonly keys: readonly string[];
  /** Program to run for each event; empty to print it. */
  readonly program: readonly string[];
}

const CONFLICT = "bad number of arguments (found conflicting environment key)";

/** Throws ExitError. */
function targetOf(args: readonly string[], dash: number | undefined, fromEnv: FromEnv): Target {
  if (dash === args.length) {
    throw new ExitError(EXIT.badArgs, "bad number of arguments (found separator --, but no commands)");
  }
  const own = args.slice(0, dash ?? args.length);
  const keys = [...[fromEnv.key, fromEnv.end].filter((text) => text !== ""), ...own];
  if (keys.length === 0) throw new ExitError(EXIT.badArgs, "bad number of arguments");
  return { keys, program: dash === undefined ? [] : args.slice(dash) };
}

/** Throws ExitError. */
function watchRequest(flags: FlagSet, keys: readonly string[], progressNotify: boolean): Partial<WatchCreateRequest> {
  const prefix = flags.bool("prefix");
  const end = keys.length === 2 ? keys[1] : undefined;
  if (end !== undefined && prefix) {
    throw new ExitError(EXIT.badArgs, "`range_end` and `--prefix` are mutually exclusive");
  }
  return {
    ...rangeOf(keys[0]!, end, prefix, false),
    startRevision: Math.max(0, flags.number("rev")),
    prevKv: flags.bool("prev-kv"),
    progressNotify,
  };
}

/** What programs read must stay what it is. */
const MACHINE_FORMATS = new Set(["json", "protobuf"]);

/** Prints events or runs the program until the server ends the watch. */
async function print(ctl: Ctl, stream: WatchStream, program: readonly string[]): Promise<void> {
  for await (const response of stream.responses()) {
    if (response.canceled) ctl.io.err(`watch was canceled (${cancelReason(response)})\n`);
    if (isProgress(response)) ctl.io.out(`progress notify: ${response.header?.revision}\n`);
    if (response.events.length > 0 && ctl.flags.bool("time")) {
      ctl.io.out(`${new Date(ctl.io.clock.wallMs()).toISOString()}\n`);
    }
    await ctl.show("watch", response);
    if (program.length > 0) await runForEach(ctl, response, program);
  }
}

const isProgress = (response: WatchResponse) =>
  response.events.length === 0 &&
  !response.canceled &&
  response.compactRevision === 0 &&
  (response.header?.revision ?? 0) !== 0;

async function runForEach(ctl: Ctl, response: WatchResponse, program: readonly string[]): Promise<void> {
  const [file, ...args] = program;
  for (const { type, kv } of response.events) {
    const env = {
      ETCD_WATCH_REVISION: String(response.header?.revision ?? 0),
      ETCD_WATCH_EVENT_TYPE: type === 0 ? '"PUT"' : '"DELETE"',
      ETCD_WATCH_KEY: quote(kv?.key ?? ""),
      ETCD_WATCH_VALUE: quote(kv?.value ?? ""),
    };
    let problem: string | undefined;
    try {
      const end = await ctl.io.runProgram(file!, args, env);
      if (end !== 0) problem = describeEnd(end);
    } catch (error) {
      problem = describeError(error);
    }
    if (problem !== undefined) {
      ctl.io.err(`command [${program.map(quote).join(" ")}] error (${problem})\n`);
      throw new ExitError(EXIT.error, "");
    }
  }
}

async function interactive(ctl: Ctl, fromEnv: FromEnv): Promise<never> {
  const cluster = await ctl.cluster();
  const streams: WatchStream[] = [];
  let fail: (error: unknown) => void = () => {};
  const failed = new Promise<never>((_, reject) => (fail = reject));
  const commands = async (): Promise<never> => {
    const lines = readLines(ctl.io.stdin);
    for (;;) {
      const next = await lines.next();
      if (next.done) throw new ExitError(EXIT.invalidInput, "error reading watch request line: EOF");
      const stream = await command(ctl, cluster, decodeLossless(next.value), fromEnv, streams);
      if (stream === undefined) continue;
      streams.push(stream.stream);
      print(ctl, stream.stream, stream.program).then(() => streams.splice(streams.indexOf(stream.stream), 1), fail);
    }
  };
  return Promise.race([commands(), failed]);
}

/** Executes a line; returns the watch that it starts. Throws ExitError where etcdctl exits. */
async function command(
  ctl: Ctl,
  cluster: Cluster,
  line: string,
  fromEnv: FromEnv,
  streams: readonly WatchStream[],
): Promise<{ readonly stream: WatchStream; readonly program: readonly string[] } | undefined> {
  const [word, ...rest] = words(line);
  const refuse = (text: string): undefined => void ctl.io.err(`${text}\n`);
  if (word === undefined) return refuse(`Invalid command: ${line} (watch and progress supported)`);
  if (word === "progress") {
    for (const stream of streams) await stream.requestProgress();
    return undefined;
  }
  if (word !== "watch") return refuse(`Invalid command ${line} (only support watch)`);
  if (rest.length === 0 && fromEnv.key === "") {
    return refuse(`Invalid command ${line} (command type or key is not provided)`);
  }
  const flags = new FlagSet(FLAGS);
  try {
    const { args, dash } = flags.parse(rest);
    if (dash === undefined && args.length > 0 && fromEnv.key !== "") throw new ExitError(EXIT.badArgs, CONFLICT);
    const { keys, program } = targetOf(args, dash, fromEnv);
    if (keys.length === 2 && flags.bool("prefix")) {
      return refuse(`Invalid command ${line} (\`range_end\` and \`--prefix\` are mutually exclusive)`);
    }
    const request = watchRequest(flags, keys, ctl.flags.bool("progress-notify"));
    return { stream: new WatchStream(cluster, ctl.io.clock, request), program };
  } catch (error) {
    if (error instanceof FlagError) throw new ExitError(EXIT.badArgs, error.message);
    throw error;
  }
}
