import { readFileSync } from "node:fs";
import { posix } from "node:path";
import type { Clock } from "../../base/clock.ts";
import { KvorumError } from "../../base/errors.ts";
import type { Logger } from "../../base/log.ts";
import type { TlsOptions } from "../../client/raw.ts";
import type { DiscoveryConfig } from "../../config/config.ts";
import { parseUrlsByMember, urlTexts } from "../../config/values/url.ts";
import { Cluster, type ClusterOptions } from "../../ctl/connection.ts";
import { describeError } from "../../ctl/exit.ts";
import { prefixEnd } from "../../ctl/ranges.ts";
import { WatchStream } from "../../ctl/watch-stream.ts";
import { formatId } from "../../membership/member.ts";
import { KVService } from "../../proto/etcdserverpb.ts";
import { Event_EventType as EventType } from "../../proto/mvccpb.ts";

/** etcd's wait before the n-th retry is 2^n seconds, no longer than this. */
const RETRY_WAIT_MS_MAX = 256_000;
const STILL_WAITING_MS = 10_000;
const REGISTRY = "/_etcd/registry";
/** Largest answer from the registry, and largest request to it. */
const REQUEST_BYTES_MAX = 2 * 1024 * 1024;

/** The registry refuses this member. The message is etcd's. */
export class DiscoveryError extends KvorumError {
  override name = "DiscoveryError";
  readonly code = "ERR_DISCOVERY";
}

export interface DiscoveryOptions {
  readonly config: DiscoveryConfig;
  readonly clock: Clock;
  readonly logger: Logger;
}

/**
 * v3 discovery: members that do not know each other register under a token at another etcd, the registry, which holds
 * the cluster size. Registers this member, waits for the others without a time limit, and resolves to the peer URLs of
 * all members by name. Late members are refused. An unreachable registry is retried indefinitely. Source: etcd
 * `server/etcdserver/api/v3discovery/discovery.go`.
 */
export async function joinByDiscovery(
  options: DiscoveryOptions,
  memberId: bigint,
  cluster: string,
): Promise<ReadonlyMap<string, readonly string[]>> {
  const registry = new Registry(options, memberId);
  try {
    const found = await registry.join(cluster);
    registry.logger.info("discovery joined cluster successfully", { cluster: found });
    return parse(found);
  } catch (error) {
    registry.logger.error("discovery failed to join cluster", { cluster: "", error: error as Error });
    throw new DiscoveryError(`failed to join discovery cluster (${describeError(error)})`, { cause: error });
  } finally {
    await registry.close();
  }
}

function parse(cluster: string): ReadonlyMap<string, readonly string[]> {
  try {
    return new Map([...parseUrlsByMember(cluster)].map(([name, urls]) => [name, urlTexts(urls)]));
  } catch (error) {
    throw new DiscoveryError("discovery: invalid peer URL", { cause: error });
  }
}

/** The registry's content at a revision. */
interface Meeting {
  readonly size: number;
  readonly revision: number;
  readonly members: Registered[];
}

interface Registered {
  readonly key: string;
  /** `name=url,name=url` */
  readonly cluster: string;
  readonly createRevision: number;
}

class Registry {
  readonly logger: Logger;
  /** For connecting and for a request. */
  readonly #timeoutMs: number;
  readonly #clock: Clock;
  readonly #cluster: Cluster;
  readonly #sizeKey: string;
  readonly #membersPrefix: string;
  readonly #ownKey: string;
  #retries = 0;

  constructor({ config, clock, logger }: DiscoveryOptions, memberId: bigint) {
    const context = { "discovery-token": config.token, "discovery-endpoints": config.endpoints.join(",") };
    this.logger = withFields(logger, context);
    this.#timeoutMs = config.dialTimeoutMs + config.requestTimeoutMs;
    this.#clock = clock;
    this.#cluster = new Cluster(connection(config, clock));
    const root = posix.join(REGISTRY, config.token);
    this.#sizeKey = posix.join(root, "_config/size");
    this.#membersPrefix = posix.join(root, "members");
    this.#ownKey = posix.join(this.#membersPrefix, formatId(memberId));
  }

  async join(cluster: string): Promise<string> {
    await this.#persistently("cluster status check", () => this.#check());
    await this.#persistently("register member itself", () => this.#register(cluster));
    const meeting = await this.#persistently("cluster status check", () => this.#check());
    if (meeting.members.length < meeting.size) await this.#waitForOthers(meeting);
    // More members than needed may have registered at once: the first ones form the cluster.
    const chosen = meeting.members.slice(0, meeting.size).map((member) => member.cluster);
    return chosen.join(",");
  }

  close(): Promise<void> {
    return this.#cluster.close();
  }

  /** Reads the registry. Throws `DiscoveryError` for an unknown token, or when the cluster is full. */
  async #check(): Promise<Meeting> {
    const limits = { timeoutMs: this.#timeoutMs };
    const sizes = await this.#cluster.call(KVService.Range, { key: Buffer.from(this.#sizeKey) }, limits);
    const size = sizes.kvs[0];
    if (size === undefined) throw new DiscoveryError("discovery: size key not found");
    const text = Buffer.from(size.value).toString("utf8");
    if (!/^\+?0*[1-9]\d{0,8}$/.test(text)) throw new DiscoveryError("discovery: size key is bad");
    const range = { key: Buffer.from(this.#membersPrefix), rangeEnd: prefixEnd(Buffer.from(this.#membersPrefix)) };
    const { kvs, header } = await this.#cluster.call(KVService.Range, range, limits);
    const meeting: Meeting = { size: Number(text), revision: header?.revision ?? 0, members: [] };
    for (const kv of kvs) this.#add(meeting, kv);
    const place = meeting.members.findIndex((member) => member.key === this.#ownKey);
    if ((place < 0 ? meeting.members.length : place) >= meeting.size) {
      throw new DiscoveryError("discovery: cluster is full");
    }
    return meeting;
  }

  async #register(cluster: string): Promise<void> {
    const put = { key: Buffer.from(this.#ownKey), value: Buffer.from(cluster) };
    await this.#cluster.call(KVService.Put, put, { timeoutMs: this.#timeoutMs });
    this.logger.info("register member itself successfully", { memberKey: this.#ownKey, memberInfo: cluster });
  }

  /**
   * Waits until all members are registered. If the registry ends the watch, it restarts from the current registrations.
   */
  async #waitForOthers(meeting: Meeting): Promise<void> {
    const tell = (): void =>
      this.logger.info("waiting for peers from discovery service", {
        clusterSize: meeting.size,
        "found-peers": meeting.members.length,
        "registered-peers": meeting.members.map((member) => member.cluster),
      });
    tell();
    const timer = this.#clock.every(STILL_WAITING_MS, tell);
    try {
      let from = meeting.revision;
      while (meeting.members.length < meeting.size) {
        await this.#watch(meeting, from);
        if (meeting.members.length >= meeting.size) break;
        const now = await this.#persistently("cluster status check", () => this.#check());
        meeting.members.splice(0, meeting.members.length, ...now.members);
        from = now.revision;
      }
    } finally {
      timer.cancel();
    }
    const fields = { clusterSize: meeting.size, "found-peers": meeting.members.length };
    this.logger.info("found all needed peers from discovery service", fields);
  }

  async #watch(meeting: Meeting, revision: number): Promise<void> {
    const range = { key: Buffer.from(this.#membersPrefix), rangeEnd: prefixEnd(Buffer.from(this.#membersPrefix)) };
    const watch = new WatchStream(this.#cluster, this.#clock, { ...range, startRevision: revision + 1 });
    for await (const { events } of watch.responses()) {
      for (const { type, kv } of events) if (type === EventType.PUT && kv !== undefined) this.#add(meeting, kv);
      if (meeting.members.length >= meeting.size) return watch.cancel();
    }
  }

  #add(meeting: Meeting, kv: { key: Uint8Array; value: Uint8Array; createRevision: number }): void {
    const key = Buffer.from(kv.key).toString("utf8").trim();
    const cluster = Buffer.from(kv.value).toString("utf8").trim();
    const fields = { memberKey: key, memberInfo: cluster };
    if (!cluster.includes("=")) {
      this.logger.warn("invalid peer info returned from discovery service", fields);
    } else if (meeting.members.some((member) => member.key === key)) {
      this.logger.warn("found duplicate peer from discovery service", fields);
    } else {
      meeting.members.push({ key, cluster, createRevision: kv.createRevision });
      meeting.members.sort((a, b) => a.createRevision - b.createRevision);
      this.logger.info("found peer from discovery service", fields);
    }
  }

  /** Retries until the registry answers; its answer about this member is final. */
  async #persistently<T>(step: string, attempt: () => Promise<T>): Promise<T> {
    for (;;) {
      try {
        const result = await attempt();
        this.#retries = 0;
        return result;
      } catch (error) {
        if (error instanceof DiscoveryError) throw error;
        this.#retries++;
        const waitMs = Math.min(1000 * 2 ** this.#retries, RETRY_WAIT_MS_MAX);
        this.logger.warn("retry connecting to discovery service", {
          reason: step,
          backoff: `${waitMs / 1000}s`,
          error: describeError(error),
        });
        this.#cluster.moveOn();
        await new Promise<void>((wake) => this.#clock.after(waitMs, wake));
      }
    }
  }
}

function connection(config: DiscoveryConfig, clock: Clock): ClusterOptions {
  const [user, password = config.password] = splitOnce(config.user);
  return {
    endpoints: config.endpoints,
    tls: tlsOf(config),
    auth: user === "" || password === "" ? undefined : { user, password },
    keepAliveMs: config.keepAliveTimeMs,
    keepAliveTimeoutMs: config.keepAliveTimeoutMs,
    requestBytesMax: REQUEST_BYTES_MAX,
    clock,
  };
}

/** `user:password`; a password may contain colons. */
function splitOnce(user: string): [user: string, password?: string] {
  const colon = user.indexOf(":");
  return colon < 0 ? [user] : [user.slice(0, colon), user.slice(colon + 1)];
}

function tlsOf(config: DiscoveryConfig): TlsOptions | undefined {
  const { certFile, keyFile, caFile } = config;
  if ((certFile === "") !== (keyFile === "")) {
    throw new DiscoveryError(`KeyFile and CertFile must both be present[key: ${keyFile}, cert: ${certFile}]`);
  }
  const hasFiles = certFile !== "" || caFile !== "";
  if (!hasFiles && config.insecureTransport && !config.insecureSkipVerify) return undefined;
  return {
    ...(certFile === "" ? {} : { cert: readFileSync(certFile), key: readFileSync(keyFile) }),
    ...(caFile === "" ? {} : { ca: readFileSync(caFile) }),
    ...(config.insecureSkipVerify ? { insecureSkipVerify: true } : {}),
  };
}

function withFields(logger: Logger, context: Readonly<Record<string, string>>): Logger {
  return {
    debugEnabled: logger.debugEnabled,
    debug: (message, fields) => logger.debug(message, { ...context, ...fields }),
    info: (message, fields) => logger.info(message, { ...context, ...fields }),
    warn: (message, fields) => logger.warn(message, { ...context, ...fields }),
    error: (message, fields) => logger.error(message, { ...context, ...fields }),
  };
}
