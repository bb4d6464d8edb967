/** The flags of `etcd grpc-proxy start`, and what does not go together. Source: etcd v3.7, server/etcdmain/grpc_proxy.go. */
import type { Flag, FlagSet } from "../../base/flags.ts";
import { quote } from "../../base/quote.ts";
import { CIPHER_SUITES } from "../../config/values/cipher-suites.ts";
import { ProxyError } from "../contract.ts";

const SEND_BYTES_MAX = 1.5 * 1024 * 1024;
const RECEIVE_BYTES_MAX = 2 ** 31 - 1;

const text = (name: string, value: string, usage: string): Flag => ({ name, kind: "string", value, usage });
const yes = (name: string, usage: string): Flag => ({ name, kind: "bool", value: false, usage });
const time = (name: string, value: number, usage: string): Flag => ({ name, kind: "duration", value, usage });
const number = (name: string, value: number, usage: string): Flag => ({ name, kind: "uint", value, usage });

export const FLAGS: readonly Flag[] = [
  text("listen-addr", "127.0.0.1:23790", "listen address"),
  text("discovery-srv", "", "domain whose SRV records name the members"),
  text("discovery-srv-name", "", "suffix of the service's name in the SRV records"),
  yes("insecure-discovery", "accept SRV records without verifying the members' certificates"),
  { name: "endpoints", kind: "strings", value: ["127.0.0.1:2379"], usage: "comma separated etcd cluster endpoints" },
  time("endpoints-auto-sync-interval", 0, "how often the members are asked for their addresses; 0 for never"),
  text("metrics-addr", "", "URL of an additional listener for /metrics and /health"),
  time("dial-keepalive-time", 0, "silence after which a connection to a member is pinged; 0 for no pings"),
  time("dial-keepalive-timeout", 20_000, "how long to wait for the answer to such a ping"),
  yes(
    "permit-without-stream",
    "ping members also while no call is in progress (no effect: nothing waits for an answer then)",
  ),
  text("advertise-client-url", "127.0.0.1:23790", "address of this proxy as its clients reach it"),
  text("resolver-prefix", "", "prefix under which proxies register, so that they know each other"),
  number("resolver-ttl", 0, "seconds after which a proxy that is gone is no longer known"),
  text("namespace", "", "prefix that is added to all keys"),
  yes("enable-pprof", "no effect: there is no Go run time to profile"),
  text("data-dir", "default.proxy", "directory for a generated certificate"),
  number("max-send-bytes", SEND_BYTES_MAX, "largest request that is forwarded, in bytes"),
  number("max-recv-bytes", RECEIVE_BYTES_MAX, "largest answer of a member, in bytes"),
  time("grpc-keepalive-min-time", 5000, "shortest interval at which clients may ping"),
  time("grpc-keepalive-interval", 7_200_000, "silence after which a client is pinged; 0 for no pings"),
  time("grpc-keepalive-timeout", 20_000, "how long to wait for the answer to such a ping"),
  number("max-concurrent-streams", 0xffffffff, "calls that each connection of a client may have at a time"),
  text("cert", "", "certificate that is shown to members; must have no common name"),
  text("key", "", "its key"),
  text("cacert", "", "CA file that verifies members"),
  yes("insecure-skip-tls-verify", "do not verify members' certificates (for tests only)"),
  text("cert-file", "", "certificate that is shown to clients"),
  text("key-file", "", "its key"),
  text("trusted-ca-file", "", "CA file that verifies clients, which then must show a certificate"),
  { name: "listen-cipher-suites", kind: "strings", value: [], usage: "cipher suites for clients, for TLS 1.2" },
  yes("auto-tls", "serve clients with a certificate that is generated"),
  text("client-crl-file", "", "list of revoked certificates of clients"),
  number("self-signed-cert-validity", 1, "years for which a generated certificate is valid"),
  text("tls-min-version", "TLS1.2", "oldest TLS version for clients, TLS1.2 or TLS1.3"),
  text("tls-max-version", "", "newest TLS version for clients, TLS1.2 or TLS1.3; empty for the newest there is"),
  yes("experimental-serializable-ordering", "serializable reads never go back in time"),
  text("experimental-leasing-prefix", "", "hold keys under leases with this prefix, and answer reads of them alone"),
  yes("experimental-enable-grpc-logging", "log every call"),
  yes("debug", "log at level debug"),
];

/** Throws ProxyError. */
export function checkFlags(flags: FlagSet): void {
  const [prefix, ttl] = [flags.string("resolver-prefix"), flags.number("resolver-ttl")];
  if (prefix !== "" && ttl < 1) fail(`invalid resolver-ttl ${ttl}: with --resolver-prefix give at least 1 second`);
  if (prefix === "" && ttl > 0)
    fail(`invalid resolver-prefix ${quote(prefix)}: --resolver-ttl is of no use without it`);
  if (prefix !== "" && flags.string("advertise-client-url") === "") {
    fail('invalid advertise-client-url "": --resolver-prefix registers this proxy under it');
  }
  if (flags.bool("auto-tls") && flags.number("self-signed-cert-validity") === 0) {
    fail("selfSignedCertValidity is invalid,it should be greater than 0");
  }
  for (const [one, other] of [
    ["cert", "key"],
    ["cert-file", "key-file"],
  ] as const) {
    if ((flags.string(one) === "") !== (flags.string(other) === ""))
      fail(`give --${one} and --${other} both, or neither`);
  }
  if (flags.string("trusted-ca-file") !== "" && flags.string("cert-file") === "" && !flags.bool("auto-tls")) {
    fail("--trusted-ca-file verifies clients over TLS: give --cert-file and --key-file too");
  }
  checkTlsVersions(flags);
}

function checkTlsVersions(flags: FlagSet): void {
  const [least, most] = [flags.string("tls-min-version"), flags.string("tls-max-version")];
  if (rankOf("tls-min-version", least) > rankOf("tls-max-version", most) && most !== "") {
    fail(`min version (${least}) is greater than max version (${most})`);
  }
  const suites = flags.strings("listen-cipher-suites");
  if (least === "TLS1.3" && suites.length > 0) fail("cipher suites cannot be configured when only TLS1.3 is enabled");
  const unknown = suites.find((suite) => !CIPHER_SUITES.has(suite));
  if (unknown !== undefined) fail(`unexpected TLS cipher suite ${quote(unknown)}`);
}

function rankOf(flag: string, version: string): number {
  const rank = ["", "TLS1.2", "TLS1.3"].indexOf(version);
  if (rank >= 0) return rank;
  return fail(`${flag} is invalid: unexpected TLS version ${quote(version)} (must be one of: TLS1.2, TLS1.3)`);
}

function fail(problem: string): never {
  throw new ProxyError(problem);
}
