/**
 * Members that answer other members' HTTP requests, each with a real store, and a real client to send them. No raft:
 * for the tests of members' duties for their cluster.
 */
import http from "node:http";
import { systemClock } from "../../src/base/clock.ts";
import { ETCD_VERSION } from "../../src/base/versions.ts";
import { Lessor } from "../../src/lease/lessor.ts";
import { Cluster } from "../../src/membership/cluster.ts";
import { encodeMember, formatId, type Member } from "../../src/membership/member.ts";
import { MvccStore } from "../../src/mvcc/store/store.ts";
import { HttpPeerClient } from "../../src/peer/client.ts";
import { PeerDialer } from "../../src/peer/dialer.ts";
import { PeerEndpoints } from "../../src/peer/endpoints.ts";
import { PeerHttp } from "../../src/peer/http.ts";
import type { ClusterVersionSetRequest, DowngradeInfoSetRequest } from "../../src/proto/membershippb.ts";
import { TlsClient } from "../../src/rpc/tls/client.ts";
import { errors } from "../../src/server/contract/errors.ts";
import { LeaseForwarding } from "../../src/server/duties/lease-forwarding.ts";
import type { Empty } from "../../src/server/log/operations.ts";
import type { Read } from "../../src/server/log/read-queue.ts";
import { MemoryLogger } from "../harness/in-process.ts";
import { MemoryBackend } from "../harness/memory-backend.ts";
import { NO_PEER_TLS } from "../peer/loopback.ts";

export const CLUSTER_ID = 0xc1n;

export class TestMember {
  readonly id: bigint;
  readonly logger = new MemoryLogger();
  readonly backend: MemoryBackend;
  readonly cluster: Cluster;
  readonly lessor: Lessor;
  readonly store: MvccStore;
  readonly client: HttpPeerClient;
  /** Replaces the answer of `/version`. */
  serverVersion = ETCD_VERSION;
  /** It does not answer. */
  silent = false;
  readonly #server: http.Server;

  static async start(id: bigint, serverVersion = ETCD_VERSION): Promise<TestMember> {
    const member = new TestMember(id, await openStore());
    member.serverVersion = serverVersion;
    await new Promise<void>((resolve) => member.#server.listen(0, "127.0.0.1", resolve));
    return member;
  }

  private constructor(id: bigint, opened: Awaited<ReturnType<typeof openStore>>) {
    const { logger } = this;
    this.id = id;
    this.backend = opened.backend;
    this.store = opened.store;
    this.lessor = opened.lessor;
    this.cluster = this.recovered();
    const dialer = new PeerDialer({ clock: systemClock, tls: new TlsClient(NO_PEER_TLS, logger), dialTimeoutMs: 1000 });
    this.client = new HttpPeerClient({ logger, timeoutMs: 1000, http: new PeerHttp(systemClock, dialer) });
    const { cluster, store, lessor } = this;
    const server = { isLeader: true, leader: id, canReadNow: false, read: (read: Read) => read.serve(null) };
    const leases = new LeaseForwarding({
      clock: systemClock,
      lessor,
      cluster,
      peerClient: this.client,
      server,
      isStopped: () => false,
      isSteady: () => true,
      whenApplied: (done) => done(null),
      timeoutMs: 1000,
      fastKeepAlive: true,
    });
    const endpoints = new PeerEndpoints(
      {
        cluster,
        store,
        storageVersion: undefined,
        serverVersion: this.serverVersion,
        replication: server,
        duties: { leases },
        membership: { promote: () => Promise.resolve(errors.notLeader) },
      },
      logger,
    );
    this.#server = http.createServer((request, response) => {
      if (this.silent) request.destroy();
      else if (request.url === "/version" && this.serverVersion !== ETCD_VERSION) {
        response.end(JSON.stringify({ etcdserver: this.serverVersion, etcdcluster: this.cluster.version ?? "" }));
      } else endpoints.handle(request, response, request.url ?? "");
    });
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as { port: number }).port}`;
  }

  /** Its cluster after a restart. */
  recovered(): Cluster {
    const { id, backend, logger } = this;
    return new Cluster({ id: CLUSTER_ID, localId: id, backend, logger, serverVersion: ETCD_VERSION });
  }

  /** As applied by a cluster of one. */
  setVersion({ ver }: ClusterVersionSetRequest): Promise<Empty> {
    this.cluster.agreed.set(ver);
    return Promise.resolve({});
  }

  /** The same. */
  setDowngrade({ enabled, ver }: DowngradeInfoSetRequest): Promise<Empty> {
    this.cluster.agreed.setDowngrade({ enabled, targetVersion: ver });
    return Promise.resolve({});
  }

  put(key: string, value: string): void {
    const txn = this.store.begin();
    txn.put(Buffer.from(key), Buffer.from(value), 0n);
    txn.end();
  }

  async close(): Promise<void> {
    this.client.close();
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
    this.lessor.stop();
    await this.store.close();
    await this.backend.close();
  }
}

/** Members that know each other; the first one is the leader. */
export async function startMembers(serverVersions: readonly string[]): Promise<TestMember[]> {
  const members = await Promise.all(serverVersions.map((version, i) => TestMember.start(BigInt(0xa1 + i), version)));
  const listed: Member[] = members.map(({ id, url }) => ({
    id,
    peerUrls: [url],
    isLearner: false,
    name: formatId(id),
    clientUrls: [],
  }));
  for (const { backend, cluster } of members) {
    for (const one of listed) {
      backend.put("members", Buffer.from(formatId(one.id)), Buffer.from(encodeMember(one)));
    }
    cluster.recover(backend);
  }
  return members;
}

async function openStore(): Promise<{ backend: MemoryBackend; store: MvccStore; lessor: Lessor }> {
  const logger = new MemoryLogger();
  const backend = new MemoryBackend({ clock: systemClock });
  const lessor = new Lessor({
    clock: systemClock,
    logger,
    backend,
    minTtl: 1,
    expiredRetryIntervalMs: 3000,
    persistCheckpoints: () => false,
    onExpired: () => {},
  });
  const store = await MvccStore.open({ backend, clock: systemClock, logger, leases: lessor });
  return { backend, store, lessor };
}
