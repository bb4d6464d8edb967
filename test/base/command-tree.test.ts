import assert from "node:assert/strict";
import { test } from "node:test";
import { type Command, helpCommand, helpText, UsageError, understand } from "../../src/base/command-tree.ts";

const program: Command<string[]> = {
  name: "prog",
  short: "A program",
  sharedFlags: [
    { name: "write-out", shorthand: "w", kind: "string", value: "simple", usage: "format" },
    { name: "endpoints", kind: "strings", value: ["a"], usage: "where" },
    { name: "debug", kind: "bool", value: false, usage: "more" },
  ],
  commands: [
    {
      name: "get",
      usage: "<key>",
      short: "Reads",
      flags: [
        { name: "prefix", kind: "bool", value: false, usage: "all of them" },
        { name: "limit", kind: "int", value: 0, usage: "most" },
        { name: "wait", kind: "duration", value: 5000, usage: "how long" },
        { name: "interactive", shorthand: "i", kind: "bool", value: false, usage: "ask" },
      ],
      run() {},
    },
    { name: "lease", short: "Leases", commands: [{ name: "list", short: "Lists", run() {} }] },
    { name: "level", short: "Levels", run() {} },
  ],
};
const read = (line: string) => understand(program, line.split(" ").filter(Boolean));

test("flags may come before, between and after commands and arguments", () => {
  const { command, flags, args, dash } = read(
    "--endpoints x,y -w json get --limit 3 key -i --prefix=false --endpoints=z more",
  );
  assert.equal(command.name, "get");
  assert.deepEqual(args, ["key", "more"]);
  assert.equal(dash, undefined);
  assert.deepEqual(flags.strings("endpoints"), ["x", "y", "z"]);
  assert.equal(flags.string("write-out"), "json");
  assert.equal(flags.number("limit"), 3);
  assert.equal(flags.bool("prefix"), false);
  assert.equal(flags.bool("interactive"), true);
  assert.equal(flags.number("wait"), 5000);
  assert.deepEqual([flags.changed("prefix"), flags.changed("wait")], [true, false]);
  assert.equal(read("get -iwjson k").flags.string("write-out"), "json");
  assert.equal(read("get -w=json k").flags.string("write-out"), "json");
});

test("two dashes end the flags", () => {
  const { args, dash } = read("get a -- --prefix -w");
  assert.deepEqual(args, ["a", "--prefix", "-w"]);
  assert.equal(dash, 1);
});

test("the value of a flag is not taken for a command", () => {
  const { command, flags } = read("-w get --endpoints lease level");
  assert.equal(command.name, "level");
  assert.equal(flags.string("write-out"), "get");
});

test("a flag before its command is parsed with its value, though only the command knows it", () => {
  const { command, flags, args } = read("--limit 3 -w json get key");
  assert.deepEqual([command.name, flags.number("limit"), args], ["get", 3, ["key"]]);
  assert.equal(read("--limit=3 get k").command.name, "get");
  assert.throws(() => read("--prefix get key"), /^UsageError: unknown command "key" for "prog"/);
  assert.throws(() => read("--nope x get key"), /^UsageError: unknown flag: --nope$/);
  assert.throws(() => read("--nope get"), /^UsageError: unknown flag: --nope$/);
});

test("help of a command lists the flags that all commands take", () => {
  assert.match(helpText([program, program.commands![0]!]), /\nGlobal flags:\n {6}--debug .*\n {6}--endpoints strings /);
});

test("a command may be shortened as long as it is one", () => {
  assert.equal(read("g k").command.name, "get");
  assert.equal(read("lea li").command.name, "list");
  assert.throws(() => read("le"), /^UsageError: unknown command "le" for "prog"/);
});

test("a wrong command line is refused with the error and the help for it", () => {
  const refused = (line: string, message: string, hint: RegExp) =>
    assert.throws(
      () => read(line),
      (error: Error & { hint: string }) => error.message === message && hint.test(error.hint),
      line,
    );
  refused("get --nope", "unknown flag: --nope", /^Usage:\n {2}prog get <key> \[flags\]\n/);
  refused("get -x", "unknown shorthand flag: 'x' in -x", /--limit int/);
  refused("get --limit", "flag needs an argument: --limit", /Usage/);
  refused("get -w", "flag needs an argument: 'w' in -w", /Usage/);
  const limit = 'invalid argument "x" for "--limit" flag: strconv.ParseInt: parsing "x": invalid syntax';
  refused("get --limit x", limit, /Usage/);
  refused("gett", 'unknown command "gett" for "prog"\n\nDid you mean this?\n\tget\n', /Run 'prog --help'/);
});

test("help lists subcommands and flags with their defaults", () => {
  assert.match(
    helpText([program]),
    /^A program\n\nUsage:\n {2}prog \[command\]\n\nAvailable commands:\n {2}get {9}Reads\n/,
  );
  assert.match(helpText([program, program.commands![0]!]), / {6}--wait duration {3}how long \(default 5s\)\n/);
});

test("the command help prints what --help of the named command prints, and refuses words that name none", () => {
  const printed: string[] = [];
  const io = { out: (text: string) => printed.push(text) };
  const lease: Command<{ io: typeof io }> = { name: "lease", short: "Leases", run() {} };
  const root: Command<{ io: typeof io }> = { name: "prog", short: "A program", commands: [lease, helpCommand()] };
  const help = (...words: string[]) => {
    const invocation = understand(root, ["help", ...words]);
    return invocation.command.run?.({ io }, invocation);
  };
  help();
  help("lea");
  assert.deepEqual(printed, [helpText([root]), helpText([root, lease])]);
  assert.throws(
    () => help("lease", "gone"),
    new UsageError("no command is called lease gone", "Run 'prog --help' for usage.\n"),
  );
});
