/** `etcd gateway start`: flags, checks and messages. Source: etcd v3.7, server/etcdmain/gateway.go. */
import { lookup } from "node:dns/promises";
import { isIP } from "node:net";
import { ConnectionLimit, descriptorLimit, RESERVED_DESCRIPTORS } from "../../api/listeners/connection-limit.ts";
import { quote } from "../../base/quote.ts";
import { systemText } from "../../base/system-error.ts";
import { type ProxyCommand, ProxyError, type ProxyIo } from "../contract.ts";
import { discoverRemotes } from "../discovery.ts";
import { splitHostPort } from "../host-port.ts";
import { TcpProxy } from "./proxy.ts";
import { type Remote, Remotes } from "./remotes.ts";

const start: ProxyCommand = {
  name: "start",
  short: "start the gateway",
  flags: [
    { name: "listen-addr", kind: "string", value: "127.0.0.1:23790", usage: "listen address" },
    { name: "discovery-srv", kind: "string", value: "", usage: "DNS domain whose SRV records name the members" },
    { name: "discovery-srv-name", kind: "string", value: "", usage: "suffix of the service's name in the SRV records" },
    {
      name: "insecure-discovery",
      kind: "bool",
      value: false,
      usage: "accept SRV records without verifying the members' certificates",
    },
    {
      name: "trusted-ca-file",
      kind: "string",
      value: "",
      usage: "path to the CA file that verifies the members found by --discovery-srv",
    },
    {
      name: "endpoints",
      kind: "strings",
      value: ["127.0.0.1:2379"],
      usage: "comma separated etcd cluster endpoints",
    },
    {
      name: "retry-delay",
      kind: "duration",
      value: 60_000,
      usage: "duration of delay before retrying failed endpoints",
    },
  ],
  async run(context, { flags, raw }) {
    const { io } = context;
    io.logger.info("Running: ", { args: ["etcd", ...raw] });
    const found = await discoverRemotes(io, {
      domain: flags.string("discovery-srv"),
      suffix: flags.string("discovery-srv-name"),
      caFile: flags.string("trusted-ca-file"),
      insecure: flags.bool("insecure-discovery"),
    });
    const remotes = found.length > 0 ? found : flags.strings("endpoints").map(parseRemote);
    const listen = splitListenAddress(flags.string("listen-addr"));
    await refuseLoop(remotes, listen, flags.string("listen-addr"));
    if (remotes.length === 0) throw new ProxyError("no endpoints found");
    const proxy = new TcpProxy({
      remotes: new Remotes({
        remotes,
        retryMs: flags.number("retry-delay") || RETRY_MS_IF_ZERO,
        clock: io.clock,
        random: io.random,
        logger: io.logger,
      }),
      limit: connectionLimit(io),
    });
    try {
      context.running = await proxy.listen(listen.host, listen.port);
    } catch (error) {
      throw new ProxyError(`listen tcp ${flags.string("listen-addr")}: ${systemText(error)}`);
    }
    io.logger.info("ready to proxy client requests", { endpoints: remotes.map(({ address }) => address) });
  },
};

export const gateway: ProxyCommand = { name: "gateway", short: "gateway related command", commands: [start] };

const RETRY_MS_IF_ZERO = 300_000;
/** A client's connection, and the one to a member. */
const DESCRIPTORS_EACH = 2;

function connectionLimit({ clock, logger }: ProxyIo): ConnectionLimit {
  const max = Math.max(1, Math.floor((descriptorLimit() - RESERVED_DESCRIPTORS) / DESCRIPTORS_EACH));
  const advice = "raise the limit of open files (systemd: LimitNOFILE=, shell: ulimit -n), or start another gateway";
  return new ConnectionLimit({ who: "client", max, advice, clock, logger });
}

/** An endpoint with or without scheme. Throws ProxyError. */
function parseRemote(endpoint: string): Remote {
  const text = /^[a-z][a-z0-9+.-]*:\/\/([^/?#]+)/i.exec(endpoint)?.[1] ?? endpoint;
  const parts = splitHostPort(text);
  if (parts === undefined) {
    throw new ProxyError(`error parsing endpoint ${quote(text)}: an endpoint is host:port, or a URL with both`);
  }
  return { ...parts, address: text, priority: 0, weight: 0 };
}

function splitListenAddress(address: string): { readonly host: string; readonly port: number } {
  const parts = splitHostPort(address);
  if (parts === undefined) throw new ProxyError(`failed to validate listen address: ${address}`);
  return parts;
}

/** A gateway that forwards to itself would use up all descriptors. */
async function refuseLoop(
  remotes: readonly Remote[],
  listen: { readonly host: string; readonly port: number },
  listenText: string,
): Promise<void> {
  const own = new Set(
    await addressesOf(listen.host, () => new ProxyError(`failed to resolve listen host: ${listen.host}`)),
  );
  for (const { host, port } of remotes) {
    const addresses = await addressesOf(host, () => new ProxyError(`failed to resolve endpoint host: ${host}`));
    const same = port === listen.port ? addresses.find((address) => own.has(address)) : undefined;
    if (same !== undefined) {
      throw new ProxyError(
        `SRV or endpoint (${host}:${port}->${same}:${port}) should not resolve to the gateway listen addr (${listenText})`,
      );
    }
  }
}

async function addressesOf(host: string, failure: () => ProxyError): Promise<readonly string[]> {
  if (host === "") return [];
  if (isIP(host) !== 0) return [host];
  try {
    return (await lookup(host, { all: true })).map(({ address }) => address);
  } catch {
    throw failure();
  }
}
