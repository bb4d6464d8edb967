import assert from "node:assert/strict";
import http from "node:http";
import { after, before, describe, test } from "node:test";
import { systemClock } from "../../src/base/clock.ts";
import { HttpPeerClient } from "../../src/peer/client.ts";
import { PeerDialer } from "../../src/peer/dialer.ts";
import { PeerHttp } from "../../src/peer/http.ts";
import {
  ClusterService,
  KVService,
  LeaseKeepAliveRequest,
  LeaseKeepAliveResponse,
  LeaseService,
  MaintenanceService,
} from "../../src/proto/etcdserverpb.ts";
import { TlsClient } from "../../src/rpc/tls/client.ts";
import { errors } from "../../src/server/contract/errors.ts";
import { MemoryLogger } from "../harness/in-process.ts";
import { requireStockEtcd, stockEtcd, stockEtcdVersion } from "../harness/programs.ts";
import { freePorts, type Server, startServer } from "../harness/server.ts";
import { NO_PEER_TLS } from "./loopback.ts";

const logger = new MemoryLogger();

function peerClient(timeoutMs = 5000): HttpPeerClient {
  const dialer = new PeerDialer({ clock: systemClock, tls: new TlsClient(NO_PEER_TLS, logger), dialTimeoutMs: 1000 });
  return new HttpPeerClient({ logger, timeoutMs, http: new PeerHttp(systemClock, dialer) });
}

describe("requests to a stock etcd member", { skip: requireStockEtcd() }, () => {
  let stock: Server;
  let version: number;
  const client = peerClient();
  const peer = () => ({ id: 1n, urls: [stock.peerUrl] });
  before(async () => {
    stock = await startServer(stockEtcd());
    version = (await stockEtcdVersion())!;
  });
  after(async () => {
    client.close();
    await stock?.close();
  });

  test("its members are listed with ids of 64 bits and the cluster's id", async () => {
    const { clusterId, members } = await client.members(stock.peerUrl, 5000);
    const { header, members: listed } = await stock.client.unary(ClusterService.MemberList, {});
    assert.equal(clusterId, header!.clusterId);
    assert.deepEqual(
      members.map(({ id, name, peerUrls, clientUrls, isLearner }) => ({ id, name, peerUrls, clientUrls, isLearner })),
      listed.map(({ id, name, peerUrls, clientUrls, isLearner }) => ({ id, name, peerUrls, clientUrls, isLearner })),
    );
  });

  test("it reports its versions; before 3.6 none of its storage", async () => {
    const versions = await client.versions(peer());
    assert.equal(Number(versions.server.split(".")[1]), Math.round((version - 3) * 1000));
    assert.equal(versions.cluster, `3.${Math.round((version - 3) * 1000)}.0`);
    assert.equal(versions.storage, version < 3.006 ? "" : versions.cluster);
  });

  test("its hash at a revision is the same as for clients, and a revision in the future is an error", async () => {
    await stock.client.unary(KVService.Put, { key: Buffer.from("k"), value: Buffer.from("v") });
    const { clusterId } = await client.members(stock.peerUrl, 5000);
    const wanted = await stock.client.unary(MaintenanceService.HashKV, { revision: 2 });
    const found = await client.hashKv(peer(), 2, clusterId);
    assert.equal(found.hash, wanted.hash);
    assert.equal(found.revision, 2);
    assert.equal(found.compactRevision, wanted.compactRevision);
    if (version >= 3.006) assert.equal(found.hashRevision, 2);
    // 3.4 fails to log an error here and closes the connection.
    if (version < 3.005) return;
    await assert.rejects(client.hashKv(peer(), 99, clusterId), (error) => error === errors.futureRevision);
    await assert.rejects(client.hashKv(peer(), 2, clusterId + 1n), (error) => error === errors.clusterIdMismatch);
  });

  test("a compacted revision is an error", async (t) => {
    if (version < 3.005) return t.skip("etcd before 3.5 closes the connection in place of an answer");
    for (let i = 0; i < 3; i++)
      await stock.client.unary(KVService.Put, { key: Buffer.from("k"), value: Buffer.from(`${i}`) });
    await stock.client.unary(KVService.Compact, { revision: 4, physical: true });
    const { clusterId } = await client.members(stock.peerUrl, 5000);
    await assert.rejects(client.hashKv(peer(), 2, clusterId), (error) => error === errors.compacted);
  });

  test("a lease is renewed, and its keys and times are returned", async () => {
    const { id } = await stock.client.unary(LeaseService.LeaseGrant, { ttl: 600 });
    await stock.client.unary(KVService.Put, { key: Buffer.from("leased"), value: Buffer.from("v"), lease: id });
    assert.equal(await client.renewLease(peer(), id), 600);
    const withKeys = await client.leaseTimeToLive(peer(), id, true);
    assert.equal(withKeys.grantedTtl, 600);
    assert.ok(withKeys.ttl > 590);
    assert.deepEqual(
      withKeys.keys.map((key) => Buffer.from(key).toString()),
      ["leased"],
    );
    assert.deepEqual((await client.leaseTimeToLive(peer(), id, false)).keys, []);
  });

  test("a lease that does not exist is not found", async () => {
    await assert.rejects(client.renewLease(peer(), 7n), (error) => error === errors.leaseNotFound);
    await assert.rejects(client.leaseTimeToLive(peer(), 7n, false), (error) => error === errors.leaseNotFound);
  });

  test("promotion of an unknown member and of a voter fails with the leader's error", async () => {
    await assert.rejects(client.promoteMember(peer(), 7n), (error) => error === errors.memberNotFound);
    const { members } = await client.members(stock.peerUrl, 5000);
    await assert.rejects(client.promoteMember(peer(), members[0]!.id), (error) => error === errors.memberNotLearner);
  });

  test("no downgrade is in progress", async (t) => {
    if (version < 3.005) return t.skip("etcd before 3.5 does not serve this");
    assert.equal(await client.downgradeEnabled(peer()), false);
  });
});

describe("a member with several URLs", () => {
  const servers: http.Server[] = [];
  after(() => {
    for (const server of servers) {
      server.closeAllConnections();
      server.close();
    }
  });
  const serve = async (handler: http.RequestListener): Promise<string> => {
    const server = http.createServer(handler);
    servers.push(server);
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    return `http://127.0.0.1:${(server.address() as { port: number }).port}`;
  };
  const versions = '{"etcdserver":"3.6.13","etcdcluster":"3.6.0","storage":"3.6.0"}';

  test("is asked at the next one when one fails, and the failure is logged with its URL", async () => {
    const [port] = await freePorts(1);
    const dead = `http://127.0.0.1:${port}`;
    const broken = await serve((_request, response) => response.end("no JSON"));
    const good = await serve((_request, response) => response.end(versions));
    const client = peerClient();
    const found = await client.versions({ id: 0xabn, urls: [dead, broken, good] });
    assert.deepEqual(found, { server: "3.6.13", cluster: "3.6.0", storage: "3.6.0" });
    const logged = logger.lines.filter(({ fields }) => fields["remote-member-id"] === "ab");
    assert.deepEqual(
      logged.map(({ fields }) => fields["address"]),
      [`${dead}/version`, `${broken}/version`],
    );
    client.close();
  });

  test("is given up with the last error, which names the URL", async () => {
    const [port] = await freePorts(1);
    const client = peerClient();
    await assert.rejects(
      client.versions({ id: 1n, urls: [`http://127.0.0.1:${port}`] }),
      new RegExp(`Get "http://127\\.0\\.0\\.1:${port}/version": .*connection refused`),
    );
    client.close();
  });

  test("is not asked at the next one after an answer that another URL would repeat", async () => {
    let asked = 0;
    const url = await serve((_request, response) => {
      asked++;
      response.statusCode = 404;
      response.end("lease not found\n");
    });
    const client = peerClient();
    await assert.rejects(
      client.renewLease({ id: 1n, urls: [url, url] }, 5n),
      (error) => error === errors.leaseNotFound,
    );
    assert.equal(asked, 1);
    client.close();
  });

  test("that is silent is given up in time", async () => {
    const url = await serve(() => {});
    const client = peerClient(50);
    await assert.rejects(client.versions({ id: 1n, urls: [url] }), /context deadline exceeded/);
    await assert.rejects(client.members(url, 50), /context deadline exceeded/);
    client.close();
  });

  test("that answers without end is given up when the answer is too long", async () => {
    const url = await serve((_request, response) => {
      const more = (): void => void (response.write(Buffer.alloc(64 * 1024)) && setImmediate(more));
      response.on("drain", more);
      more();
    });
    const client = peerClient();
    await assert.rejects(client.versions({ id: 1n, urls: [url] }), /exceeds 65536 bytes limit/);
    client.close();
  });

  test("that renews a lease other than requested is not trusted", async () => {
    const url = await serve((request, response) => {
      request.on("data", (body: Buffer) => {
        const { id } = LeaseKeepAliveRequest.decode(body);
        response.end(LeaseKeepAliveResponse.encode(LeaseKeepAliveResponse.create({ id: id + 1n, ttl: 9 })));
      });
    });
    const client = peerClient();
    await assert.rejects(client.renewLease({ id: 1n, urls: [url] }, 5n), /renew id mismatch/);
    client.close();
  });

  test("without an id in its answer about members is not trusted", async () => {
    const url = await serve((_request, response) => response.end('[{"id":1,"peerURLs":["http://127.0.0.1:1"]}]\n'));
    const client = peerClient();
    await assert.rejects(client.members(url, 5000), /names no cluster/);
    client.close();
  });
});
