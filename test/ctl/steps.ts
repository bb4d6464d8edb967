/** A sequence of etcdctl commands, and the parts of their results that two servers must have in common. */
import type { TestContext } from "node:test";
import type { Program } from "../harness/programs.ts";
import { type Server, startServer } from "../harness/server.ts";
import { ctl } from "./helpers.ts";

export interface Step {
  readonly args: readonly string[];
  readonly input?: string | Uint8Array;
  readonly env?: Readonly<Record<string, string>>;
  /** Older versions print something else. */
  readonly since37?: boolean;
  /** Only the first line of the error is etcd's; the help after it is ours. */
  readonly ownHelp?: boolean;
}

export interface Outcome {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

const $ = (text: string, more: Omit<Step, "args"> = {}): Step => ({ args: text.split(" "), ...more });
const BINARY = Buffer.from([0x61, 0xff, 0x3c, 0x62, 0x3e, 0x0a, 0x00]);
const INPUT = 'mod("a") > "0"\n\nput t1 x --prev-kv\nget a --limit 2\ndel nothing\n\nput t2 y\n\n';

const FORMATS = ["simple", "json", "fields", "protobuf"];
const everyFormat = (text: string) => FORMATS.map((format) => $(`${text} -w ${format}`));

export const STEPS: readonly Step[] = [
  $("put a 1"),
  ...everyFormat("put a 2 --prev-kv"),
  $("put bin", { input: BINARY }),
  { args: ["put", "--", "-dash", "-value"] },
  { args: ["put", "uni", "grün €😀\u00a0\u200b\ttab"] },
  $("put a", { input: "" }),
  $("put"),
  { args: ["put", "", "x"] },
  $("put a b --lease zz"),
  $("put a b --lease 1"),
  $("put a b --ignore-value"),
  $("put a --ignore-value"),
  ...everyFormat("get a"),
  ...everyFormat("get bin"),
  ...everyFormat("get uni"),
  ...everyFormat("get nothing"),
  ...everyFormat("get --prefix --keys-only -- "),
  ...everyFormat("get a z"),
  $("get bin --hex"),
  $("get --prefix a --print-value-only"),
  $("get a --count-only -w fields", { since37: true }),
  $("get a --from-key --limit 2 -w json"),
  $("get a --prefix --order descend --sort-by modify"),
  $("get a --rev 2"),
  $("get a --rev 1000000"),
  $("get a --consistency=s"),
  $("get a --consistency=q"),
  $("get a --order=x"),
  $("get a --sort-by=x"),
  $("get a --prefix --from-key"),
  $("get a b --prefix"),
  $("get a -w nothing"),
  $("get a -w table"),
  $("get"),
  $("--consistency s get a"),
  $("--rev 3 get a"),
  $("--limit 1 --sort-by key get --prefix a"),
  $("-w json get a"),
  $("--prefix get a", { ownHelp: true }),
  $("--endpoint x get a", { ownHelp: true }),
  $("-x get a", { ownHelp: true }),
  $("--keys-only=true get a"),
  $("get a --bogus", { ownHelp: true }),
  $("get a -x", { ownHelp: true }),
  $("get a --limit", { ownHelp: true }),
  $("get a --limit x", { ownHelp: true }),
  $("get a --prefix=maybe", { ownHelp: true }),
  $("get a --dial-timeout 3", { ownHelp: true }),
  $("get a --write-out", { ownHelp: true }),
  $("nonsense", { ownHelp: true }),
  $("eleet", { since37: true }),
  $("a", { since37: true }),
  { args: ["ge\tt"], since37: true },
  $("get a", { env: { ETCDCTL_WRITE_OUT: "json" } }),
  $("get a --keys-only --count-only", { since37: true }),
  $("get a --count-only", { since37: true }),
  $("get a --print-value-only -w json", { since37: true }),
  $("get a --min-create-rev 5 --max-create-rev 2", { since37: true }),
  $("get a --cert= ", { since37: true }),
  ...FORMATS.map((format) => $(`txn -w ${format}`, { input: INPUT, since37: format === "json" })),
  $("txn -i", { input: 'val("a") = "2"\nver("a") < "2"\n\nput t1 x\n\nput t3 "q \\"uoted\\" \\xff"\nget t3\n\n' }),
  $("txn", { input: "nonsense\n\n\n\n" }),
  $("txn", { input: 'mod("a") > "x"\n\n\n\n' }),
  $("txn", { input: 'colour("a") > "1"\n\n\n\n' }),
  $("txn", { input: "\nfrob a b\n\n\n" }),
  $("txn", { input: "\nput a\n\n\n" }),
  $("txn", { input: "\nput d 1\nput d 2\n\n\n" }),
  $("txn", { input: "" }),
  $("txn x"),
  ...everyFormat("del t1 --prev-kv"),
  $("del t --prefix"),
  $("del"),
  $("del a b c"),
  $("del a b --prefix"),
  $("del x y --range", { since37: true }),
  $("lease grant"),
  $("lease grant x"),
  $("lease revoke zz"),
  $("lease revoke 1"),
  ...everyFormat("lease timetolive 1"),
  $("lease timetolive"),
  ...everyFormat("lease timetolive -- -5"),
  $("lease timetolive --hex -w fields -- -5", { since37: true }),
  $("lease timetolive -- -8000000000000000"),
  $("lease revoke -- -5"),
  $("lease list"),
  $("lease keep-alive --once 1"),
  $("lease keep-alive"),
  $("lease nonsense", { ownHelp: true }),
  ...everyFormat("lease list"),
  $("compaction x"),
  $("compaction"),
  $("compaction 99999"),
  $("compaction 3"),
  $("compaction 3"),
  $("compaction 4 --physical"),
  $("get a --rev 2"),
  ...["json", "fields", "table"].map((format) => $(`member list -w ${format}`, { since37: true })),
  $("member list --hex -w json", { since37: true }),
  $("member list"),
  $("member add"),
  $("member add name"),
  $("member add name http://x"),
  $("member remove"),
  $("member remove zz"),
  $("member remove 1"),
  $("member update 1"),
  $("member promote 1"),
  ...FORMATS.map((format) => $(`alarm list -w ${format}`, { since37: format === "fields" })),
  $("alarm disarm"),
  $("alarm list x"),
  $("endpoint hashkv -w json", { since37: true }),
  $("endpoint hashkv -w fields", { since37: true }),
  $("endpoint hashkv -w protobuf"),
  $("endpoint health", { since37: true }),
  $("endpoint health -w json", { since37: true }),
  $("endpoint health -w fields", { since37: true }),
  $("endpoint health -w protobuf", { since37: true }),
  $("endpoint status -w json", { since37: true }),
  $("endpoint status -w fields", { since37: true }),
  $("endpoint status", { since37: true }),
  $("endpoint status -w table", { since37: true }),
  $("defrag", { since37: true }),
  $("move-leader"),
  $("move-leader zz"),
  $("watch"),
  $("watch a b --prefix"),
  $("watch a --"),
  $("watch a", { env: { ETCDCTL_WATCH_KEY: "b" } }),
  $("watch a", { env: { ETCDCTL_WATCH_RANGE_END: "b" } }),
  $("watch a --rev 1"),
  $("watch -i", { input: "", since37: true }),
  $("watch -i", { input: "nonsense\n\nwatch\n", since37: true }),
  $("watch -i", { input: "watch a --bogus\n", since37: true }),
  $("lock"),
  $("lock l -- sh -c true"),
  $("lock l -- sh -c false"),
  { args: ["lock", "l", "--", "sh", "-c", "kill -9 $$"], since37: true },
  { args: ["lock", "l", "--", "sh", "-c", "kill -TERM $$"], since37: true },
  { args: ["lock", "l", "--", "sh", "-c", "exit 77"], since37: true },
  $("lock l -- no-such-program"),
  $("elect"),
  $("elect e"),
  $("elect e p -l"),
  $("snapshot save", { since37: true }),
  $("check perf --load q"),
  $("version", { since37: true }),
  ...everyFormat("role add r"),
  $("role add"),
  $("role grant-permission r readwrite k --prefix"),
  $("role grant-permission r read a b"),
  $("role grant-permission r write z --from-key"),
  $("role grant-permission r write single"),
  $("role grant-permission r all k"),
  $("role grant-permission r"),
  ...everyFormat("role get r"),
  ...everyFormat("role list"),
  $("role revoke-permission r a b"),
  $("role revoke-permission r z --from-key"),
  $("role revoke-permission r single"),
  $("role revoke-permission r nothing"),
  $("user add u:pw"),
  $("user add u:pw"),
  $("user add :pw"),
  $("user add root:pw"),
  $("user add cn --no-password"),
  $("user add other --interactive=false", { input: "secret\n" }),
  $("user add spaced --interactive=false", { input: "  first second\nthird\n" }),
  $("user add empty --interactive=false", { input: "\nsecond\n" }),
  $("user passwd other --interactive=false", { input: "secret2\n" }),
  $("user grant-role u r"),
  $("user grant-role u nothing"),
  $("user get u"),
  $("user get u --detail"),
  $("user get nobody"),
  $("user get u -w fields"),
  $("user get u -w json"),
  $("user list"),
  $("user list -w json"),
  $("user revoke-role u r"),
  $("user grant-role u r"),
  $("auth status", { since37: true }),
  $("auth status -w json", { since37: true }),
  $("auth enable x"),
  $("auth enable"),
  $("get a"),
  $("get a --user u:wrong"),
  $("get a --user u:pw"),
  $("get k1 --user u:pw"),
  $("put k1 v --user u --password pw"),
  $("endpoint health --user u:pw", { since37: true }),
  $("user list --user u:pw"),
  $("user list --user root:pw", {}),
  $("auth disable --user root:pw"),
  $("role delete r"),
  ...["simple", "json", "fields"].map((format) => $(`lease grant 100 -w ${format}`)),
  $("lease grant 100 -w protobuf"),
  $("lease grant 0"),
  $("lease revoke 1 -w protobuf"),
  $("move-leader 1"),
  $("downgrade validate", { since37: true }),
  $("downgrade validate 3.5", { since37: true }),
  $("downgrade validate x", { since37: true }),
  $("downgrade enable 3.6", { since37: true }),
  $("downgrade enable 3.6", { since37: true }),
  $("endpoint status -w json", { since37: true }),
  $("downgrade cancel -w json", { since37: true }),
  $("downgrade cancel", { since37: true }),
  $("member add l --peer-urls http://127.0.0.1:9 --learner", { since37: true }),
  // An id comes from the URLs and the second: with the same URLs, the second would decide which error it is.
  $("member add m --peer-urls http://127.0.0.1:8,http://127.0.0.1:9", { since37: true }),
  $("member add m --peer-urls nonsense"),
  $("get --stream a", { since37: true }),
  $("get --stream --prefix  -w json", { since37: true }),
  $("put hex \\x61 --hex"),
  $("put hex v2 --prev-kv --hex"),
  $("help get", { ownHelp: true }),
  $("g a"),
  $("member l -w json --consistency s", { since37: true }),
  $("user delete u -w json"),
];

/**
 * Starts servers until the ids of one have 16 digits each, as 7 in 8 have: tables are as wide as their ids, which come
 * from the ports.
 */
export async function startWithLongIds(t: TestContext, program: Program): Promise<Server> {
  for (;;) {
    const server = await startServer(program);
    const { cluster, member } = await idsOf(server);
    if ([cluster, member].every((id) => id.toString(16).length === 16)) {
      t.after(() => server.close());
      return server;
    }
    await server.close();
  }
}

async function idsOf(server: Server): Promise<{ cluster: bigint; member: bigint }> {
  const { stdout } = await ctl(["--endpoints", server.endpoint, "member", "list", "-w", "json"]);
  const text = stdout.toString();
  const [cluster, member] = [/"cluster_id":(\d+)/, /"member_id":(\d+)/].map((field) => BigInt(field.exec(text)![1]!));
  return { cluster: cluster!, member: member! };
}

/** The environment of a step; a password is checked on a busy machine, too, within the time limits. */
export function environmentOf({ env, args }: Step): Readonly<Record<string, string>> {
  const isTimed = args.some((arg) => arg.startsWith("--dial-timeout") || arg.startsWith("--command-timeout"));
  return isTimed ? { ...env } : { ETCDCTL_DIAL_TIMEOUT: "60s", ETCDCTL_COMMAND_TIMEOUT: "60s", ...env };
}

/** Differences between any two servers. */
export async function names(server: Server): Promise<readonly (readonly [RegExp, string])[]> {
  const { cluster, member } = await idsOf(server);
  return [
    [new RegExp(String(cluster), "g"), "CLUSTER"],
    [new RegExp(cluster.toString(16), "g"), "CLUSTER"],
    [new RegExp(String(member), "g"), "MEMBER"],
    [new RegExp(member.toString(16), "g"), "MEMBER"],
    [new RegExp(server.endpoint, "g"), "ENDPOINT"],
    [new RegExp(server.peerUrl, "g"), "PEER"],
  ];
}

export function plain(
  run: { code: number; stdout: Buffer; stderr: string },
  known: Awaited<ReturnType<typeof names>>,
  step: Step,
): Outcome {
  const clean = (text: string) => {
    let out = text;
    for (const [pattern, name] of known) out = out.replace(pattern, name);
    return (
      out
        // Logs of the client library.
        .replace(/^\{"level":.*\}\n/gm, "")
        .replace(/took = \S+|took \S+|"took":"[^"]*"|"Took" : \S+/g, "TOOK")
        .replace(/"(raftIndex|raftAppliedIndex|dbSize|dbSizeInUse)":\d+/g, '"$1":N')
        .replace(/"(RaftIndex|RaftAppliedIndex|DBSize|DBSizeInUse)" : \d+/g, '"$1" : N')
        .replace(/lease [0-9a-f]{16} granted|"ID":\d{15,}|"ID" : \d{15,}|Member +[0-9a-f]+ added/g, "NEW")
        .replace(/"hash":\d+|"Hash" : \d+/g, "HASH")
        // Members are ordered by their ids, which are random.
        .replace(/(?<=ETCD_INITIAL_CLUSTER=")[^"]*/g, (list) => list.split(",").sort().join(","))
        .replace(/(?<="members":\[)[^\n]*(?=\]\}\n)/g, (list) =>
          list
            .split(/,(?=\{)/)
            .sort()
            .join(","),
        )
    );
  };
  const binary = step.args.includes("protobuf") && run.stdout.length > 0;
  const stderr = clean(run.stderr);
  let stdout = clean(run.stdout.toString("latin1"));
  // The header of a binary message contains ids: only the rest can be compared.
  if (binary) stdout = stdout.slice(stdout.charCodeAt(1) + 2);
  if (step.args[0] === "endpoint" && step.args[1] === "status") stdout = stdout.replace(/\d+ kB|\d+%|\b\d+\b/g, "N");
  return {
    code: run.code,
    stdout: step.ownHelp ? "" : stdout,
    stderr: step.ownHelp ? stderr.split("\n", 1)[0]! : stderr,
  };
}
