/**
 * Clusters of real processes on 127.0.0.1, each member ours or stock etcd, and operations on them: join, leave,
 * replace, kill, restart, lead. Use withCluster: it ends every process and, when the test fails, shows their logs.
 */
import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { RpcError } from "../../src/client/raw.ts";
import {
  ClusterService,
  type HashKVResponse,
  MaintenanceService,
  type StatusResponse,
} from "../../src/proto/etcdserverpb.ts";
import { Authority, writePair } from "./certificates.ts";
import { ourEtcd, type Program, stockEtcd } from "./programs.ts";
import { freePorts, ServerProcess, type ServerTls } from "./server.ts";
import { waitFor } from "./wait.ts";

export type Kind = "ours" | "stock";

export interface MemberSpec {
  readonly kind: Kind;
  /** Replaces the program that `kind` selects. */
  readonly program?: Program;
  readonly args?: readonly string[];
  /** Listen address; 127.0.0.1 when absent. */
  readonly host?: string;
  /** Used instead of a new directory; its owner removes it. */
  readonly dataDir?: string;
  readonly env?: Readonly<Record<string, string>>;
}

export interface ClusterOptions {
  readonly members: readonly (Kind | MemberSpec)[];
  /** Certificates for clients and peers, verified on both sides. */
  readonly tls?: boolean | { readonly clientCertificates: boolean };
  /** Additional flags, for every member and for members of one kind. */
  readonly args?: readonly string[];
  readonly argsOf?: Partial<Record<Kind, readonly string[]>>;
  /** Parent of the temporary directories; os.tmpdir() when absent. */
  readonly tempDir?: string;
}

/** Time limit for each operation of the cluster. */
const PATIENCE_MS = 30_000;
const CALL_MS = 10_000;
const DEADLINE_EXCEEDED = 4;
const UNAVAILABLE = 14;
const START_ATTEMPTS_MAX = 3;
const LOG_LINES = 25;
const LINE_LENGTH = 500;

/** Runs `body` with a cluster that is closed after it; a failure includes the last log lines of the members. */
export async function withCluster<T>(options: ClusterOptions, body: (cluster: Cluster) => Promise<T>): Promise<T> {
  const cluster = await startCluster(options);
  try {
    return await body(cluster);
  } catch (error) {
    throw new Error(`${(error as Error).stack ?? error}\n${cluster.describe()}`);
  } finally {
    await cluster.close();
  }
}

/** Starts all members at once and waits until each is healthy. */
export async function startCluster(options: ClusterOptions): Promise<Cluster> {
  const directory = mkdtempSync(join(options.tempDir ?? tmpdir(), "kvorum-cluster-"));
  try {
    const tls = options.tls ? await clusterTls(directory, options.tls) : undefined;
    for (let attempt = 1; ; attempt++) {
      const cluster = new Cluster(options, directory, tls);
      try {
        await cluster.form();
        return cluster;
      } catch (error) {
        const described = cluster.describe();
        const retry = attempt < START_ATTEMPTS_MAX && cluster.all.some((member) => member.portWasTaken());
        await cluster.closeMembers();
        if (!retry) throw new Error(`the cluster did not form: ${(error as Error).message}\n${described}`);
      }
    }
  } catch (error) {
    rmSync(directory, { recursive: true, force: true });
    throw error;
  }
}

export class Member extends ServerProcess {
  kind: Kind;
  #id = 0n;

  constructor(spec: MemberSpec, name: string, args: readonly string[], ports: readonly number[], more: MemberOptions) {
    super(
      spec.program ?? programOf(spec.kind),
      { ...more, ...placeOf(spec), name, args, startTimeoutMs: PATIENCE_MS },
      ports[0]!,
      ports[1]!,
    );
    this.kind = spec.kind;
  }

  /** Known once the member was asked for its status. */
  get id(): bigint {
    assert.notEqual(this.#id, 0n, `the id of ${this.name} is not known yet`);
    return this.#id;
  }

  /** Stops, and restarts with its data as a program of the other kind. */
  async become(kind: Kind): Promise<void> {
    await this.kill("SIGTERM");
    this.kind = kind;
    this.program = programOf(kind);
    await this.start();
  }

  async status(timeoutMs = CALL_MS): Promise<StatusResponse> {
    const status = await this.client.unary(MaintenanceService.Status, {}, { timeoutMs });
    this.#id = status.header!.memberId;
    return status;
  }

  override async healthy(): Promise<void> {
    await super.healthy();
    await this.status();
  }

  /** The last log lines, with very long lines truncated. */
  logTail(): string {
    const lines = this.log().trimEnd().split("\n").slice(-LOG_LINES);
    return lines.map((line) => (line.length > LINE_LENGTH ? `${line.slice(0, LINE_LENGTH)}…` : line)).join("\n");
  }

  override toString(): string {
    return `${this.name} (${this.kind})`;
  }
}

const placeOf = ({ host, dataDir, env }: MemberSpec) => ({
  ...(host === undefined ? {} : { host }),
  ...(dataDir === undefined ? {} : { dataDir }),
  ...(env === undefined ? {} : { env }),
});

const programOf = (kind: Kind): Program => (kind === "ours" ? ourEtcd() : stockEtcd());

interface MemberOptions {
  readonly tempDir: string;
  readonly tls?: ServerTls;
}

export class Cluster {
  /** In start order, without removed members. */
  readonly all: Member[] = [];
  readonly #options: ClusterOptions;
  readonly #directory: string;
  readonly #tls: ServerTls | undefined;
  #names = 0;

  constructor(options: ClusterOptions, directory: string, tls: ServerTls | undefined) {
    this.#options = options;
    this.#directory = directory;
    this.#tls = tls;
  }

  get running(): Member[] {
    return this.all.filter((member) => member.running);
  }

  get tls(): ServerTls | undefined {
    return this.#tls;
  }

  /** For etcdctl: the paths of the certificates, if there are any. */
  get ctlArgs(): string[] {
    if (this.#tls === undefined) return [];
    const file = (name: string) => join(this.#directory, name);
    return ["--cacert", file("ca.crt"), "--cert", file("member.crt"), "--key", file("member.key")];
  }

  endpoints(members: readonly Member[] = this.running): string {
    return members.map(({ url }) => url).join(",");
  }

  of(kind: Kind): Member[] {
    return this.all.filter((member) => member.kind === kind);
  }

  /** The first member of that kind. */
  one(kind: Kind): Member {
    const member = this.of(kind)[0];
    assert.ok(member, `the cluster has a member that is ${kind}`);
    return member;
  }

  /** Starts the first members; called by startCluster. */
  async form(): Promise<void> {
    for (const spec of this.#options.members) this.all.push(await this.#make(spec));
    const initial = this.all.map(({ name, peerUrl }) => `${name}=${peerUrl}`).join(",");
    for (const member of this.all) {
      member.clusterArgs = ["--initial-cluster", initial, "--initial-cluster-state", "new"];
      member.spawn();
    }
    await Promise.all(this.all.map((member) => member.healthy()));
    await this.leader();
  }

  /** Adds a member through `via` (by default any other) and waits until the new one is healthy. */
  async add(spec: Kind | MemberSpec, options: { learner?: boolean; via?: Member } = {}): Promise<Member> {
    const member = await this.#make(spec);
    const via = options.via ?? (await this.leader());
    this.all.push(member);
    const request = { peerUrls: [member.peerUrl], isLearner: options.learner ?? false };
    await change(`${via} adds ${member}`, /Peer URLs already exists/, () =>
      via.client.unary(ClusterService.MemberAdd, request, { timeoutMs: CALL_MS }),
    );
    const { members } = await via.client.unary(
      ClusterService.MemberList,
      // The member that made the change knows it; a single member has lost its quorum now.
      { linearizable: false },
      { timeoutMs: CALL_MS },
    );
    const initial = members.flatMap(({ name, peerUrls }) =>
      peerUrls.map((url) => `${url === member.peerUrl ? member.name : name}=${url}`),
    );
    member.clusterArgs = ["--initial-cluster", initial.join(","), "--initial-cluster-state", "existing"];
    await member.start();
    return member;
  }

  /** Promotes a learner once it has caught up. */
  async promote(learner: Member, via?: Member): Promise<void> {
    const asked = via ?? (await this.leader());
    await change(`${asked} promotes ${learner}`, /can only promote a learner/, () =>
      asked.client.unary(ClusterService.MemberPromote, { id: learner.id }, { timeoutMs: CALL_MS }),
    );
  }

  /**
   * Removes a member through `via` (by default any other). With `keep` its process and data stay, for the caller to
   * end; otherwise it is closed, after time to end by itself.
   */
  async remove(member: Member, via?: Member, { keep = false } = {}): Promise<void> {
    const asked = via ?? this.running.find((other) => other !== member);
    assert.ok(asked, "a member is left that can remove another");
    await change(`${asked} removes ${member}`, /member not found/, async () => {
      const removal = asked.client.unary(ClusterService.MemberRemove, { id: member.id }, { timeoutMs: CALL_MS });
      // A member that removes itself may be gone before it answers.
      await removal.catch((error) => {
        const gone = asked === member && error instanceof RpcError && error.code === UNAVAILABLE;
        if (!gone || NOT_YET.test(error.details)) throw error;
      });
    });
    this.all.splice(this.all.indexOf(member), 1);
    if (keep) return;
    try {
      if (member.running) await member.ended();
    } catch (error) {
      throw new Error(`${member} was removed, but goes on: ${(error as Error).message}\n${member.logTail()}`);
    } finally {
      await member.close();
    }
  }

  /** A leader on which all running members but `except` agree. */
  leader(except: readonly Member[] = [], timeoutMs = PATIENCE_MS): Promise<Member> {
    return waitFor(
      "a leader that all running members know",
      async () => {
        const asked = this.running.filter((member) => !except.includes(member));
        const statuses = await Promise.all(asked.map((member) => member.status(2_000).catch(() => undefined)));
        const leader = statuses[0]?.leader;
        if (!leader || statuses.some((status) => status?.leader !== leader)) return undefined;
        return asked.find((_, i) => statuses[i]!.header!.memberId === leader);
      },
      timeoutMs,
    );
  }

  /** Makes a member the leader. */
  async lead(target: Member): Promise<void> {
    const leader = await this.leader();
    if (leader === target) return;
    await leader.client.unary(MaintenanceService.MoveLeader, { targetId: target.id }, { timeoutMs: CALL_MS });
    await waitFor(`${target} leads`, async () => (await this.leader()) === target, PATIENCE_MS);
  }

  /** Waits until all running members have applied the same entries, then compares their hashes. */
  async settled(timeoutMs = PATIENCE_MS): Promise<HashKVResponse[]> {
    await waitFor(
      "all members have applied the same entries",
      async () => {
        const statuses = await Promise.all(this.running.map((member) => member.status()));
        const [first] = statuses;
        return statuses.every(
          ({ raftAppliedIndex, header }) =>
            raftAppliedIndex === first!.raftAppliedIndex && header!.revision === first!.header!.revision,
        );
      },
      timeoutMs,
    );
    return this.equalHashes();
  }

  /**
   * Compares HashKV of all running members at a revision that they all have, also under load. A running compaction
   * changes it temporarily, so differences must disappear soon.
   */
  async equalHashes(): Promise<HashKVResponse[]> {
    const { header } = await this.running[0]!.status();
    let hashes: HashKVResponse[] = [];
    const equal = async () => {
      hashes = await Promise.all(this.running.map((member) => hashAt(member, header!.revision)));
      const [first] = hashes;
      return hashes.every(
        ({ hash, compactRevision }) => hash === first!.hash && compactRevision === first!.compactRevision,
      );
    };
    const shown = () =>
      this.running.map((member, i) => `${member}: ${hashes[i]?.hash} compacted at ${hashes[i]?.compactRevision}`);
    await waitFor(`equal HashKV at ${header!.revision}`, equal, CALL_MS).catch((error) => {
      throw new Error(`${(error as Error).message}: ${shown().join(", ")}`);
    });
    return hashes;
  }

  /** The last log lines of the members. */
  describe(): string {
    const one = (member: Member) =>
      `--- ${member} ${member.url} ${member.peerUrl} ${member.running ? "is running" : "has ended"}; its last lines:\n` +
      member.logTail();
    return this.all.map(one).join("\n");
  }

  async close(): Promise<void> {
    await this.closeMembers();
    rmSync(this.#directory, { recursive: true, force: true });
  }

  /** Ends all processes at once: a leader that transfers leadership only to ending members would take long. */
  async closeMembers(): Promise<void> {
    await Promise.all(this.all.map((member) => member.kill("SIGKILL")));
    await Promise.all(this.all.map((member) => member.close()));
    this.all.length = 0;
  }

  async #make(kindOrSpec: Kind | MemberSpec): Promise<Member> {
    const spec = typeof kindOrSpec === "string" ? { kind: kindOrSpec } : kindOrSpec;
    const { args = [], argsOf = {} } = this.#options;
    const flags = [...args, ...(argsOf[spec.kind] ?? []), ...(spec.args ?? [])];
    const more = { tempDir: this.#directory, ...(this.#tls === undefined ? {} : { tls: this.#tls }) };
    return new Member(spec, `m${++this.#names}`, flags, await freePorts(2), more);
  }
}

const NOT_YET = /unhealthy cluster|not enough started members|in sync with leader/;

/**
 * Requests a membership change until it is made. etcd refuses it until all members have been connected for five seconds
 * and a learner has caught up. Stock etcd does not answer when its leader has applied an earlier change but not told
 * raft yet; then the request is repeated, and `done` matches the refusal of a change already made.
 */
async function change(what: string, done: RegExp, call: () => Promise<unknown>): Promise<void> {
  let refusal: RpcError | undefined;
  let unanswered = false;
  const attempt = async () => {
    try {
      await call();
      return true;
    } catch (error) {
      if (!(error instanceof RpcError)) throw error;
      refusal = error;
      if (unanswered && done.test(error.details)) return true;
      const late = error.code === DEADLINE_EXCEEDED;
      unanswered ||= late;
      if (!late && !NOT_YET.test(error.details)) throw new Error(`${what}: ${error.message}`);
      return false;
    }
  };
  await waitFor(what, attempt, PATIENCE_MS).catch((error) => {
    throw new Error(`${(error as Error).message}: ${refusal?.message}`);
  });
}

async function hashAt(member: Member, revision: number): Promise<HashKVResponse> {
  await waitFor(
    `${member} has revision ${revision}`,
    async () => (await member.status()).header!.revision >= revision,
    PATIENCE_MS,
  );
  return member.client.unary(MaintenanceService.HashKV, { revision }, { timeoutMs: CALL_MS });
}

async function clusterTls(directory: string, options: true | { clientCertificates: boolean }): Promise<ServerTls> {
  const clientCertificates = options === true || options.clientCertificates;
  const authority = await Authority.create("cluster");
  const caFile = join(directory, "ca.crt");
  writeFileSync(caFile, authority.pem);
  const pair = await authority.issue({ cn: "member" });
  const { certFile, keyFile } = writePair(directory, "member", pair);
  const ca = Buffer.from(authority.pem);
  return {
    args: [
      ...["--cert-file", certFile, "--key-file", keyFile],
      ...(clientCertificates ? ["--trusted-ca-file", caFile, "--client-cert-auth"] : []),
      ...["--peer-cert-file", certFile, "--peer-key-file", keyFile],
      ...["--peer-trusted-ca-file", caFile, "--peer-client-cert-auth"],
    ],
    client: clientCertificates ? { ca, cert: Buffer.from(pair.cert), key: Buffer.from(pair.key) } : { ca },
  };
}
