/**
 * The service Cluster of a proxy, which shows its clients the proxies instead of the members: itself, or all that are
 * registered under one prefix. Source: etcd v3.7, server/proxy/grpcproxy/cluster.go and register.go.
 */
import { hostname } from "node:os";
import { inBackground } from "../../base/background.ts";
import { messageOf } from "../../base/errors.ts";
import type { Logger } from "../../base/log.ts";
import type { Keyspace } from "../../client/keyspace.ts";
import type { Leases } from "../../client/leases.ts";
import { ClusterService, Member, MemberListResponse, ResponseHeader } from "../../proto/etcdserverpb.ts";
import type { RpcRegistry } from "../../rpc/contract.ts";
import type { Upstream } from "./upstream.ts";

const RETRY_MS = 1000;

export interface ClusterProxyOptions {
  readonly upstream: Upstream;
  /** Grants and keeps alive the lease of the registration. */
  readonly leases: Leases;
  /** Where the proxies register. */
  readonly keys: Keyspace<string, string>;
  readonly logger: Logger;
  /** The address under which clients reach this proxy; empty to show the members. */
  readonly advertised: string;
  /** Proxies that share it show each other; empty for none. */
  readonly prefix: string;
  /** Seconds after which a proxy that is gone is no longer shown. */
  readonly ttl: number;
}

export class ClusterProxy {
  readonly #options: ClusterProxyOptions;
  /** Registered proxies by key: address and name. */
  readonly #registered = new Map<string, { readonly address: string; readonly name: string }>();
  readonly #closing = new AbortController();

  constructor(options: ClusterProxyOptions) {
    this.#options = options;
    if (options.prefix === "" || options.advertised === "") return;
    inBackground(
      this.#untilClosed("register this proxy", () => this.#register()),
      "register",
      options.logger,
    );
    inBackground(
      this.#untilClosed("watch the proxies", () => this.#follow()),
      "watch the proxies",
      options.logger,
    );
  }

  register(rpc: RpcRegistry): void {
    const { upstream } = this.#options;
    for (const method of [
      ClusterService.MemberAdd,
      ClusterService.MemberRemove,
      ClusterService.MemberUpdate,
      ClusterService.MemberPromote,
    ]) {
      rpc.unary(method.path, (call) => upstream.forward(call, method, { safety: "write" }));
    }
    rpc.unary(ClusterService.MemberList.path, (call) => {
      if (this.#options.advertised === "") upstream.forward(call, ClusterService.MemberList, { safety: "read" });
      else call.respond(MemberListResponse.encode(this.#list()));
    });
  }

  close(): void {
    this.#closing.abort();
  }

  #list(): MemberListResponse {
    const proxies = [...this.#registered.values()];
    if (proxies.length === 0) proxies.push({ address: this.#options.advertised, name: hostname() });
    const members = proxies.map(({ address, name }) => Member.create({ name, clientUrls: [address] }));
    return MemberListResponse.create({ header: ResponseHeader.create(), members });
  }

  /** Once for each lease; resolves when the lease is lost. */
  async #register(): Promise<void> {
    const { leases, keys, advertised, prefix, ttl, logger } = this.#options;
    const { signal } = this.#closing;
    const lease = await leases.grant(ttl, { signal });
    try {
      const update = { Op: 0, Addr: advertised, Metadata: JSON.stringify({ name: hostname() }) };
      await keys.put(`${prefix}/${advertised}`, JSON.stringify(update), { lease, signal });
      logger.info("registered session with lease", { addr: advertised, "lease-ttl": ttl });
      await ended(lease.signal, signal);
      if (!signal.aborted) logger.warn("session expired; possible network partition or server restart");
    } finally {
      if (signal.aborted) await lease.revoke().catch(() => {});
      else lease.abandon();
    }
  }

  /** Reads what is registered and follows its changes. */
  async #follow(): Promise<void> {
    const { keys, prefix } = this.#options;
    const { signal } = this.#closing;
    const range = { prefix: `${prefix}/` };
    const { kvs, revision } = await keys.range(range, { signal });
    this.#registered.clear();
    for (const { key, value } of kvs) this.#learn(key, value);
    for await (const event of keys.watch(range, { revision: revision + 1, signal })) {
      if (event.type === "delete") this.#registered.delete(event.key);
      else this.#learn(event.key, event.kv.value);
    }
  }

  #learn(key: string, value: string): void {
    try {
      const { Addr: address, Metadata: metadata } = JSON.parse(value);
      if (typeof address !== "string" || address === "") throw new Error("it names no Addr");
      const { name } = typeof metadata === "string" ? JSON.parse(metadata) : { name: "" };
      this.#registered.set(key, { address, name: typeof name === "string" ? name : "" });
    } catch (error) {
      this.#options.logger.warn("a registered proxy cannot be understood", { key, error: messageOf(error) });
    }
  }

  async #untilClosed(what: string, work: () => Promise<void>): Promise<void> {
    const { signal } = this.#closing;
    const { clock } = this.#options.upstream.caller;
    while (!signal.aborted) {
      try {
        await work();
      } catch (error) {
        if (!signal.aborted) this.#options.logger.warn(`failed to ${what}`, { error: messageOf(error) });
      }
      if (!signal.aborted) await new Promise<void>((resolve) => clock.after(RETRY_MS, resolve));
    }
  }
}

/** Resolves when either signal fires. */
function ended(...signals: readonly AbortSignal[]): Promise<void> {
  return new Promise((resolve) => {
    for (const signal of signals) {
      if (signal.aborted) resolve();
      else signal.addEventListener("abort", () => resolve(), { once: true });
    }
  });
}
