/** Requests between members over HTTP, sent to ours and to stock etcd: the answers must be the same, byte for byte. */
import assert from "node:assert/strict";
import http from "node:http";
import { after, before, describe, test } from "node:test";
import {
  KVService,
  LeaseKeepAliveRequest,
  LeaseService,
  LeaseTimeToLiveRequest,
} from "../../src/proto/etcdserverpb.ts";
import { LeaseInternalRequest } from "../../src/proto/leasepb.ts";
import { ourEtcd, requireStockEtcd, stockEtcd, stockEtcdVersion } from "../harness/programs.ts";
import { type Server, startServers } from "../harness/server.ts";

interface Answer {
  readonly status: number;
  readonly headers: Record<string, string>;
  readonly body: string;
}

/** Headers that describe the answer. */
const HEADERS = ["content-type", "content-length", "allow", "x-content-type-options", "x-etcd-cluster-id"];

interface Question {
  readonly method?: string;
  readonly path: string;
  readonly headers?: Record<string, string>;
  readonly body?: string | Uint8Array;
}

function ask(server: Server, { method = "GET", path, headers = {}, body }: Question): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const length = body === undefined ? {} : { "content-length": Buffer.byteLength(body) };
    const request = http.request(
      `${server.peerUrl}${path}`,
      { method, agent: false, headers: { ...headers, ...length } },
      (response) => {
        const parts: Buffer[] = [];
        response.on("data", (part: Buffer) => parts.push(part));
        response.on("error", reject);
        response.on("end", () => {
          const said = HEADERS.flatMap((name) =>
            response.headers[name] === undefined ? [] : [[name, `${response.headers[name]}`]],
          );
          resolve({
            status: response.statusCode!,
            headers: Object.fromEntries(said),
            body: Buffer.concat(parts).toString("latin1"),
          });
        });
      },
    );
    request.on("error", reject);
    request.end(body);
  });
}

describe("ours and stock etcd give the same answers to other members", { skip: requireStockEtcd() }, () => {
  let ours: Server;
  let stock: Server;
  let version: number;
  const leaseId = 0x1234n;
  before(async () => {
    version = (await stockEtcdVersion())!;
    [ours, stock] = (await startServers([ourEtcd(), stockEtcd()])) as [Server, Server];
    for (const { client } of [ours, stock]) {
      await client.unary(LeaseService.LeaseGrant, { id: leaseId, ttl: 1000 });
      // One key on the lease: stock etcd lists several in any order.
      for (let i = 0; i < 5; i++) {
        await client.unary(KVService.Put, {
          key: Buffer.from(`k${i}`),
          value: Buffer.from("v"),
          lease: i === 4 ? leaseId : 0n,
        });
      }
      await client.unary(KVService.Compact, { revision: 3, physical: true });
    }
  });
  after(() => Promise.all([ours?.close(), stock?.close()]));

  /** The same in both: names of the member and its version are replaced. */
  async function same(question: Question): Promise<Answer> {
    const answers = await Promise.all(
      [ours, stock].map(async (server) => {
        const { status, headers, body } = await ask(server, question);
        const { header } = await server.client.unary(KVService.Range, { key: Buffer.from("none") });
        const names = [
          [`${header!.clusterId.toString(16)}`, "CLUSTER"],
          [`${header!.memberId}`, "MEMBER"],
          [server.url, "CLIENT_URL"],
          [server.peerUrl, "PEER_URL"],
        ] as const;
        const replaced = (text: string) => names.reduce((said, [name, by]) => said.replaceAll(name, by), text);
        const about = Object.entries(headers).filter(([name]) => name !== "content-length" || replaced(body) === body);
        return {
          status,
          headers: Object.fromEntries(about.map(([name, value]) => [name, replaced(value)])),
          body: replaced(body),
        };
      }),
    );
    assert.deepEqual(answers[0], answers[1], `${question.method ?? "GET"} ${question.path} ${question.body ?? ""}`);
    return answers[0]!;
  }

  test("about the members", async () => {
    const { body } = await same({ path: "/members" });
    assert.equal(body, '[{"id":MEMBER,"peerURLs":["PEER_URL"],"name":"default","clientURLs":["CLIENT_URL"]}]\n');
    for (const path of ["/members/", "/members/x", "/", "/nope", "/leases/", "/leases/x"]) await same({ path });
    await same({ path: "/members?some=query" });
  });

  test("to the wrong methods", async () => {
    for (const path of ["/members", "/version", "/members/hashkv"]) {
      for (const method of ["POST", "PUT", "DELETE", "HEAD"]) await same({ method, path });
    }
    for (const path of ["/members/promote/1", "/leases", "/leases/internal"]) await same({ path });
    if (version >= 3.005) await same({ method: "POST", path: "/downgrade/enabled" });
  });

  test("about versions, except for the versions themselves", async (t) => {
    if (version < 3.007) return t.skip("stock etcd is older: it says something else");
    await same({ path: "/version" });
  });

  test("about a downgrade", async (t) => {
    if (version < 3.005) return t.skip("etcd before 3.5 does not serve this");
    assert.equal((await same({ path: "/downgrade/enabled" })).body, "false");
  });

  test("about hashes", async (t) => {
    if (version < 3.006) return t.skip("etcd before 3.6 does not say the revision of a hash");
    const path = "/members/hashkv";
    const headers = { "content-type": "application/json" };
    assert.match((await same({ path, headers, body: "{}" })).body, /^{"header":{"revision":6},"hash":\d+,/);
    for (const revision of [0, 3, 4, 5, 6]) await same({ path, headers, body: `{"revision":${revision}}` });
    for (const revision of [1, 2, 7]) {
      assert.equal((await same({ path, headers, body: `{"revision":${revision}}` })).status, 400);
    }
    for (const body of ["", "x", "5", "[]", '{"revision":"5"}', '{"revision":1.5}', "null", '{"other":1}']) {
      await same({ path, body });
    }
    assert.equal((await same({ path, headers: { "x-etcd-cluster-id": "1" }, body: "{}" })).status, 412);
    for (const server of [ours, stock]) {
      const clusterId = (await ask(server, { path: "/members" })).headers["x-etcd-cluster-id"]!;
      const { status } = await ask(server, { path, headers: { "x-etcd-cluster-id": clusterId }, body: "{}" });
      assert.equal(status, 200);
    }
  });

  test("about leases", async () => {
    const renewal = (id: bigint) => LeaseKeepAliveRequest.encode(LeaseKeepAliveRequest.create({ id }));
    const question = (id: bigint, keys: boolean) =>
      LeaseInternalRequest.encode(
        LeaseInternalRequest.create({ leaseTimeToLiveRequest: LeaseTimeToLiveRequest.create({ id, keys }) }),
      );
    const post = (path: string, body: Uint8Array) => same({ method: "POST", path, body });
    assert.equal((await post("/leases", renewal(leaseId))).status, 200);
    assert.equal((await post("/leases", renewal(5n))).body, "lease not found\n");
    assert.equal((await post("/leases", Buffer.from([0xff]))).body, "error unmarshalling request\n");
    await post("/leases", Buffer.alloc(0));
    for (const keys of [false, true]) {
      await post("/leases", renewal(leaseId));
      const { status, body } = await post("/leases/internal", question(leaseId, keys));
      assert.equal(status, 200);
      assert.equal(body.includes("k4"), keys);
      assert.equal((await post("/leases/internal", question(5n, keys))).status, 404);
    }
    await post("/leases/internal", Buffer.from([0xff]));
  });

  test("to requests that are too large", async (t) => {
    if (version < 3.007) return t.skip("etcd before 3.7 reads requests of any size");
    assert.equal((await same({ method: "POST", path: "/leases", body: Buffer.alloc(64 * 1024 + 1) })).status, 413);
  });

  test("about impossible promotions", async () => {
    for (const id of ["1", "x", "", "-1", "18446744073709551616", "1/2"]) {
      assert.equal((await same({ method: "POST", path: `/members/promote/${id}` })).status, 404);
    }
    const self: Answer[] = [];
    for (const server of [ours, stock]) {
      const { header } = await server.client.unary(KVService.Range, { key: Buffer.from("none") });
      self.push(await ask(server, { method: "POST", path: `/members/promote/${header!.memberId}` }));
    }
    assert.deepEqual([self[0]!.status, self[0]!.body], [self[1]!.status, self[1]!.body]);
    assert.equal(self[0]!.status, 412);
  });
});
