import assert from "node:assert/strict";
import { test } from "node:test";
import { defaultOf } from "../../../src/config/settings/definition.ts";
import { flagSettings } from "../../../src/config/settings/definitions.ts";
import { readCommandLine } from "../../../src/config/sources/command-line.ts";
import { complaintOf, load, loadConfigOf } from "../harness.ts";

// Every text in this file was compared with what etcd v3.7.1 prints for the same arguments.
const REFUSED: readonly (readonly [argument: string, complaint: string])[] = [
  ["--foo", "flag provided but not defined: -foo"],
  ["-foo=1", "flag provided but not defined: -foo"],
  ["---x", "bad flag syntax: ---x"],
  ["--=x", "bad flag syntax: --=x"],
  ["--max-txn-ops=x", 'invalid value "x" for flag -max-txn-ops: parse error'],
  ["--max-txn-ops=-1", 'invalid value "-1" for flag -max-txn-ops: parse error'],
  [
    "--max-txn-ops=99999999999999999999",
    'invalid value "99999999999999999999" for flag -max-txn-ops: value out of range',
  ],
  ["--max-learners=1.5", 'invalid value "1.5" for flag -max-learners: parse error'],
  [
    "--max-concurrent-streams=x",
    'invalid value "x" for flag -max-concurrent-streams: strconv.ParseUint: parsing "x": invalid syntax',
  ],
  [
    "--max-concurrent-streams=4294967296",
    'invalid value "4294967296" for flag -max-concurrent-streams: strconv.ParseUint: parsing "4294967296": value out of range',
  ],
  ["--grpc-keepalive-timeout=5", 'invalid value "5" for flag -grpc-keepalive-timeout: parse error'],
  ["--pre-vote=maybe", 'invalid boolean value "maybe" for -pre-vote: parse error'],
  ["--initial-cluster-state=foo", 'invalid value "foo" for flag -initial-cluster-state: invalid value'],
  ["--v2-deprecation=not-yet", 'invalid value "not-yet" for flag -v2-deprecation: invalid value "not-yet"'],
  ["--discovery-fallback=foo", 'invalid value "foo" for flag -discovery-fallback: invalid value'],
  ["--feature-gates=X=true", 'invalid value "X=true" for flag -feature-gates: unrecognized feature gate: X'],
  [
    "--feature-gates=CompactHashCheck",
    'invalid value "CompactHashCheck" for flag -feature-gates: missing bool value for CompactHashCheck',
  ],
  [
    "--listen-client-urls=127.0.0.1:1",
    'invalid value "127.0.0.1:1" for flag -listen-client-urls: parse "127.0.0.1:1": first path segment in URL cannot contain colon',
  ],
  [
    "--listen-client-urls=localhost:1",
    'invalid value "localhost:1" for flag -listen-client-urls: URL scheme must be http, https, unix, or unixs: localhost:1',
  ],
  [
    "--listen-client-urls=http://127.0.0.1:1/x",
    'invalid value "http://127.0.0.1:1/x" for flag -listen-client-urls: URL must not contain a path: http://127.0.0.1:1/x',
  ],
  [
    "--listen-client-urls=http://[::1:1",
    'invalid value "http://[::1:1" for flag -listen-client-urls: parse "http://[::1:1": missing \']\' in host',
  ],
  [
    "--listen-client-urls=http://a:b",
    'invalid value "http://a:b" for flag -listen-client-urls: parse "http://a:b": invalid port ":b" after host',
  ],
  [
    "--listen-client-urls=http://a b:1",
    'invalid value "http://a b:1" for flag -listen-client-urls: parse "http://a b:1": invalid character " " in host name',
  ],
  [
    "--listen-client-urls=http://a%zz:1",
    'invalid value "http://a%zz:1" for flag -listen-client-urls: parse "http://a%zz:1": invalid URL escape "%zz"',
  ],
  ["--listen-client-urls=:1", 'invalid value ":1" for flag -listen-client-urls: parse ":1": missing protocol scheme'],
  [
    "--listen-client-urls=http:/x",
    'invalid value "http:/x" for flag -listen-client-urls: URL address does not have the form "host:port": http:/x',
  ],
  [
    "--listen-peer-urls=unix://localhost:m10",
    'invalid value "unix://localhost:m10" for flag -listen-peer-urls: parse "unix://localhost:m10": invalid port ":m10" after host',
  ],
  ["--cors=foo", 'invalid value "foo" for flag -cors: URL scheme must be http, https, unix, or unixs: foo'],
];

for (const [argument, complaint] of REFUSED) {
  test(`${argument} is refused with Go's words`, async () => {
    const { error } = await load([argument]);
    assert.equal(error?.message, complaint);
    assert.equal(error?.kind, "flags");
  });
}

test("a flag without its value is refused", () => {
  assert.throws(() => readCommandLine(["--name"]), { message: "flag needs an argument: -name" });
});

test("an argument that is not a flag is refused after the flags were read", async () => {
  assert.equal(await complaintOf(["extra"]), '"extra" is not a valid flag');
  assert.equal(await complaintOf(["--pre-vote", "false"]), '"false" is not a valid flag');
  assert.equal(await complaintOf(["--", "x"]), '"x" is not a valid flag');
  assert.equal(await complaintOf(["-"]), '"-" is not a valid flag');
});

test("one dash is as good as two, and a value may follow a space or an equals sign", async () => {
  for (const argv of [["-name", "a"], ["--name", "a"], ["-name=a"], ["--name=a"]]) {
    assert.equal((await loadConfigOf(argv)).name, "a");
  }
});

test("a bool needs no value and takes all of Go's spellings", async () => {
  assert.equal((await loadConfigOf(["--pre-vote"])).preVote, true);
  for (const no of ["false", "0", "f", "F", "FALSE", "False"]) {
    assert.equal((await loadConfigOf([`--pre-vote=${no}`])).preVote, false);
  }
});

test("numbers may be written in any of Go's notations", async () => {
  for (const text of ["128", "0x80", "0b10000000", "0200", "0o200", "1_28"]) {
    assert.equal((await loadConfigOf([`--max-txn-ops=${text}`])).maxTxnOps, 128, text);
  }
});

test("the last of two equal flags wins", async () => {
  assert.equal((await loadConfigOf(["--name=a", "--name=b"])).name, "b");
});

test("help and version are requested with one or two dashes", () => {
  for (const argument of ["-h", "-help", "--h", "--help"]) assert.equal(readCommandLine([argument]).help, true);
  for (const argument of ["-version", "--version", "--version=true"]) {
    assert.equal(readCommandLine([argument]).version, true);
  }
});

test("an error before --help is printed instead of the help", () => {
  assert.throws(() => readCommandLine(["--foo", "--help"]), { message: "flag provided but not defined: -foo" });
});

test("every flag accepts its own default, and then has the same value as without it", () => {
  for (const setting of flagSettings) {
    const { name, kind, default: text } = setting;
    // The empty text given explicitly is a list with an empty element.
    if ((kind.name === "set" || kind.name === "list") && text === "") continue;
    const { settings } = readCommandLine([`--${name}=${text}`]);
    assert.deepEqual(settings.get(name), defaultOf(setting), name);
  }
});

test("URLs are sorted and without duplicates", async () => {
  const config = await loadConfigOf([
    "--listen-client-urls=http://127.0.0.1:3,http://127.0.0.1:1,http://127.0.0.1:3",
    "--advertise-client-urls=http://a:1",
  ]);
  assert.deepEqual(
    config.listenClientUrls.map((url) => url.text),
    ["http://127.0.0.1:1", "http://127.0.0.1:3"],
  );
});

test("an empty list of URLs keeps the default", async () => {
  const config = await loadConfigOf(["--listen-peer-urls="]);
  assert.deepEqual(
    config.listenPeerUrls.map((url) => url.text),
    ["http://localhost:2380"],
  );
});

test("a Unix socket keeps its path, relative or absolute", async () => {
  const config = await loadConfigOf([
    "--listen-client-urls=unix:///run/etcd.sock,unix://etcd.sock:1",
    "--advertise-client-urls=http://a:1",
  ]);
  assert.deepEqual(
    config.listenClientUrls.map((url) => [url.text, url.host + url.path]),
    [
      ["unix:///run/etcd.sock", "/run/etcd.sock"],
      ["unix://etcd.sock:1", "etcd.sock:1"],
    ],
  );
});

test("random arguments end in a configuration or in a ConfigError", async () => {
  const names = flagSettings.map(({ name }) => name);
  const values = [
    "",
    "x",
    "-1",
    "0",
    "1",
    "9e9",
    "true",
    "1h",
    "a=b",
    "http://",
    "http://[::1]:1",
    ",",
    "\0",
    "🦊",
    "%",
    "=",
  ];
  let seed = 12345;
  const below = (bound: number) => {
    seed = (Math.imul(seed, 1103515245) + 12345) & 0x7fffffff;
    return seed % bound;
  };
  for (let round = 0; round < 600; round++) {
    const argv: string[] = [];
    for (let i = below(3); i >= 0; i--)
      argv.push(`${"-".repeat(below(4))}${names[below(names.length)]}=${values[below(values.length)]}`);
    // `load` only throws other errors.
    const bootstraps = argv.some((argument) => /initial|urls|log-|config/.test(argument));
    if (!bootstraps) await load(argv, {}, { initialized: true });
    else
      try {
        readCommandLine(argv);
      } catch (error) {
        assert.equal((error as Error).name, "ConfigError");
      }
  }
});
