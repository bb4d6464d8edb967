import { isIP } from "node:net";
import { goDuration } from "../../base/duration.ts";
import type { Logger } from "../../base/log.ts";
import { quote } from "../../base/quote.ts";
import { ConfigError, UNSET_ADVERTISE_CLIENT_URLS } from "../errors.ts";
import { allSettings, boundOf } from "../settings/definitions.ts";
import type { Settings } from "../settings/settings.ts";
import { isUnixSocket, splitHostPort, type Url, urlTexts } from "../values/url.ts";
import { checkTiming } from "./timing.ts";

/**
 * etcd's checks of a configuration before the start, in its order and with its texts. Throws `ConfigError` of kind
 * `verify` at the first failure; values that are only unwise are logged.
 */
export function validateSettings(settings: Settings, log: Logger): void {
  checkUrls(settings, log);
  checkBootstrapFlags(settings);
  checkTiming(settings.get("heartbeat-interval"), settings.get("election-timeout"));
  const lacksAdvertised = settings.get("advertise-client-urls").length === 0;
  if (settings.get("listen-client-urls").length > 0 && lacksAdvertised) fail(UNSET_ADVERTISE_CLIENT_URLS);
  checkCompactionMode(settings.get("auto-compaction-mode"));
  checkTracing(settings);
  checkLeaseGates(settings, log);
  const hashCheckMs = settings.get("compact-hash-check-time");
  if (hashCheckMs <= boundOf("compact-hash-check-time", "above"))
    fail(`--compact-hash-check-time must be >0 (set to ${goDuration(hashCheckMs)})`);
  checkBounds(settings);
  if (settings.get("name") === "default") {
    log.warn(
      "it isn't recommended to use default name, please set a value for --name. " +
        "Note that etcd might run into issue when multiple members have the same default name",
      { name: "default" },
    );
  }
  checkTlsVersions(settings);
}

function fail(why: string): never {
  throw new ConfigError("verify", why);
}

function checkUrls(settings: Settings, log: Logger): void {
  checkBind(settings.get("listen-peer-urls"));
  checkBind(settings.get("listen-client-urls"));
  checkBind(settings.get("listen-client-http-urls"));
  if (settings.get("listen-client-http-urls").length === 0) {
    log.warn("Running http and grpc server on single port. This is not recommended for production.");
  }
  checkBind(settings.get("listen-metrics-urls"));
  const peers = settings.get("initial-advertise-peer-urls");
  const withoutHost = (urls: readonly Url[]) => urls.find((url) => !isUnixSocket(url) && url.hostname === "");
  const peer = withoutHost(peers);
  if (peer !== undefined) {
    const list = quote(urlTexts(peers).join(","));
    fail(`--initial-advertise-peer-urls ${list} must be "host:port" (unexpected empty host (${peer.text}))`);
  }
  const clients = settings.get("advertise-client-urls");
  const client = withoutHost(clients);
  if (client !== undefined) {
    const list = quote(urlTexts(clients).join(","));
    const forms = `"host:port", "unix:/path/to/socket" or "unixs:/path/to/socket"`;
    fail(`--advertise-client-urls ${list} must be in the format ${forms} (unexpected empty host (${client.text}))`);
  }
}

/** A socket is bound to an address: names are refused, except localhost. */
function checkBind(urls: readonly Url[]): void {
  for (const url of urls) {
    if (isUnixSocket(url)) continue;
    const hostname = splitHostPort(url.host)!.hostname;
    if (hostname === "localhost") continue;
    if (isIP(hostname) === 0 || hostname.includes("%")) fail(`expected IP in URL for binding (${url.text})`);
  }
}

function checkBootstrapFlags(settings: Settings): void {
  const endpoints = settings.get("discovery-endpoints");
  const ways = [settings.get("initial-cluster") !== "", settings.get("discovery-srv") !== "", endpoints.length > 0];
  const state = settings.get("initial-cluster-state");
  if (state !== "new" && state !== "existing") fail(`unexpected clusterState ${quote(state)}`);
  if (ways.filter(Boolean).length > 1) {
    fail(
      "multiple discovery or bootstrap flags are set. " +
        'Choose one of "initial-cluster", "discovery-endpoints" or "discovery-srv"',
    );
  }
  if ((settings.get("discovery-token") !== "") !== endpoints.length > 0) {
    fail("both --discovery-token and --discovery-endpoints must be set");
  }
  if (endpoints.some((endpoint) => endpoint.trim() === "")) {
    fail("--discovery-endpoints must not contain empty endpoints");
  }
}

function checkCompactionMode(mode: string): void {
  if (mode === "") fail("undefined auto-compaction-mode");
  if (mode !== "periodic" && mode !== "revision") fail(`unknown auto-compaction-mode ${quote(mode)}`);
}

function checkTracing(settings: Settings): void {
  if (!settings.get("enable-distributed-tracing")) return;
  const rate = settings.get("distributed-tracing-sampling-rate");
  const wrong = (why: string) => fail(`distributed tracing configurition is not valid: (${why})`);
  const most = boundOf("distributed-tracing-sampling-rate", "max");
  if (rate < boundOf("distributed-tracing-sampling-rate", "min")) wrong("tracing sampling rate must be positive");
  if (rate > most) wrong(`tracing sampling rate must be less than ${most}`);
}

/** The bounds in the definitions; etcd's own errors are raised above, each at its place. */
function checkBounds(settings: Settings): void {
  for (const { name, bounds } of allSettings) {
    if (bounds?.above === undefined || bounds.reason === undefined) continue;
    if ((settings.get(name) as number) <= bounds.above) fail(`--${name} must be >${bounds.above}: ${bounds.reason}`);
  }
}

function checkLeaseGates(settings: Settings, log: Logger): void {
  const persists = settings.get("feature-gates").enabled("LeaseCheckpointPersist");
  const checkpoints = settings.get("feature-gates").enabled("LeaseCheckpoint");
  if (checkpoints && !persists) {
    log.warn(
      "Detected that checkpointing is enabled without persistence. Consider enabling feature gate LeaseCheckpointPersist",
    );
  }
  if (persists && !checkpoints) {
    fail("enabling feature gate LeaseCheckpointPersist requires enabling feature gate LeaseCheckpoint");
  }
}

function checkTlsVersions(settings: Settings): void {
  const least = settings.get("tls-min-version");
  const most = settings.get("tls-max-version");
  const leastRank = tlsRank(least);
  const mostRank = tlsRank(most);
  if (mostRank !== 0 && leastRank > mostRank) fail(`min version (${least}) is greater than max version (${most})`);
  if (leastRank === 13 && settings.get("cipher-suites").length > 0) {
    fail("cipher suites cannot be configured when only TLS1.3 is enabled");
  }
}

function tlsRank(version: string): number {
  if (version === "") return 0;
  if (version === "TLS1.2") return 12;
  if (version === "TLS1.3") return 13;
  return fail(`unexpected TLS version ${quote(version)} (must be one of: TLS1.2, TLS1.3)`);
}
