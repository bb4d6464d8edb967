import assert from "node:assert/strict";
import { test } from "node:test";
import { InternalRaftRequest, PutRequest } from "../../../src/proto/etcdserverpb.ts";
import { decodeLogEntry as decode } from "../../../src/server/log/entry.ts";

function decodeLogEntry(data: Uint8Array): InternalRaftRequest | undefined {
  return decode(data, (reason) => assert.fail(reason));
}

/** etcdserverpb.Request as etcd 3.5 writes it: all fields, zero or not. */
function v2Entry(id: number, method: string, path: string, value: string): Buffer {
  const text = (tag: number, content: string): Buffer => {
    const bytes = Buffer.from(content);
    assert.ok(bytes.length < 128);
    return Buffer.concat([Buffer.from([tag, bytes.length]), bytes]);
  };
  // Dir, PrevValue, PrevIndex and the others that follow.
  const rest = Buffer.from([0x28, 0, 0x32, 0, 0x38, 0, 0x48, 0, 0x50, 0, 0x58, 0, 0x60, 0, 0x68, 0, 0x70, 0, 0x78, 0]);
  return Buffer.concat([Buffer.from([0x08, id]), text(0x12, method), text(0x1a, path), text(0x22, value), rest]);
}

test("attributes published by a 3.5 member are a membership change", () => {
  const value = '{"name":"m1","clientURLs":["http://127.0.0.1:2379"]}';
  const entry = v2Entry(7, "PUT", "/0/members/8e9e05c52164694d/attributes", value);
  const request = decodeLogEntry(entry)!;
  assert.equal(request.header!.id, 7n);
  assert.equal(request.clusterMemberAttrSet!.memberId, 0x8e9e05c52164694dn);
  assert.deepEqual(request.clusterMemberAttrSet!.memberAttributes, {
    name: "m1",
    clientUrls: ["http://127.0.0.1:2379"],
  });
});

test("so are those without client URLs, and those inside a request of the v3 API", () => {
  const alone = v2Entry(7, "PUT", "/0/members/1/attributes", '{"name":"m1"}');
  const inside = Buffer.concat([Buffer.from([0x12, alone.length]), alone]);
  for (const entry of [alone, inside]) {
    const { memberId, memberAttributes } = decodeLogEntry(entry)!.clusterMemberAttrSet!;
    assert.equal(memberId, 1n);
    assert.deepEqual(memberAttributes, { name: "m1", clientUrls: [] });
  }
});

test("the version set by a 3.4 leader is the cluster version", () => {
  assert.equal(decodeLogEntry(v2Entry(7, "PUT", "/0/version", "3.4.0"))!.clusterVersionSet!.ver, "3.4.0");
});

test("sweeps and reads change nothing", () => {
  assert.equal(decodeLogEntry(v2Entry(7, "SYNC", "", "")), undefined);
  assert.equal(decodeLogEntry(v2Entry(7, "QGET", "/1/a", "")), undefined);
});

test("keys of the v2 API are refused, with advice", () => {
  for (const [method, path] of [
    ["PUT", "/1/a"],
    ["POST", "/1/a"],
    ["DELETE", "/0/members/1"],
  ] as const) {
    assert.throws(() => decodeLogEntry(v2Entry(7, method, path, "x")), /--enable-v2/);
  }
});

test("requests of the v3 API are unchanged, also with an id first", () => {
  const put = PutRequest.create({ key: Buffer.from("PUT"), value: Buffer.from("x") });
  for (const id of [0n, 9n]) {
    const request = InternalRaftRequest.create({ id, put });
    assert.deepEqual(decodeLogEntry(InternalRaftRequest.encode(request)), request);
  }
});

test("unreadable attributes and versions change nothing", () => {
  for (const value of ["", "{", "null", "7"]) {
    const entry = v2Entry(7, "PUT", "/0/members/1/attributes", value);
    const attributes = decodeLogEntry(entry)?.clusterMemberAttrSet?.memberAttributes;
    assert.ok(attributes === undefined || attributes.name === "", value);
  }
  const odd = v2Entry(7, "PUT", "/0/members/1/attributes", '{"name":7,"clientURLs":"x"}');
  assert.deepEqual(decodeLogEntry(odd)!.clusterMemberAttrSet!.memberAttributes, { name: "", clientUrls: [] });
});
