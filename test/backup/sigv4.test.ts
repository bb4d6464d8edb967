import assert from "node:assert/strict";
import { test } from "node:test";
import { type Signable, sha256, signed } from "../../src/backup/store/sigv4.ts";

/** The examples that AWS publishes for S3 ("Examples: Signature calculations"). */
const CREDENTIALS = {
  accessKeyId: "AKIAIOSFODNN7EXAMPLE",
  secretAccessKey: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
  sessionToken: undefined,
};
const AT = Date.UTC(2013, 4, 24);
const host = "examplebucket.s3.amazonaws.com";
const NOTHING = sha256("");

const signatureOf = (request: Signable): string | undefined =>
  /Signature=(\w+)$/.exec(signed(request, CREDENTIALS, "us-east-1", AT)["authorization"]!)?.[1];

test("requests are signed as in the published examples", () => {
  const object: Signable = {
    method: "GET",
    path: "/test.txt",
    query: [],
    headers: { host, range: "bytes=0-9" },
    bodySha256: NOTHING,
  };
  assert.equal(signatureOf(object), "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41");
  const put: Signable = {
    method: "PUT",
    path: "/test%24file.text",
    query: [],
    headers: { host, date: "Fri, 24 May 2013 00:00:00 GMT", "x-amz-storage-class": "REDUCED_REDUNDANCY" },
    bodySha256: sha256("Welcome to Amazon S3."),
  };
  assert.equal(signatureOf(put), "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd");
  const bucket = { method: "GET", path: "/", headers: { host }, bodySha256: NOTHING };
  assert.equal(
    signatureOf({ ...bucket, query: [["lifecycle", ""]] }),
    "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543",
  );
  const listing = [
    ["prefix", "J"],
    ["max-keys", "2"],
  ] as const;
  assert.equal(
    signatureOf({ ...bucket, query: listing }),
    "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
  );
});

test("a session's token is sent and signed", () => {
  const request = { method: "GET", path: "/", query: [], headers: { host }, bodySha256: NOTHING };
  const headers = signed(request, { ...CREDENTIALS, sessionToken: "temporary" }, "eu-west-1", AT);
  assert.equal(headers["x-amz-security-token"], "temporary");
  assert.match(headers["authorization"]!, /\/eu-west-1\/s3\/.*;x-amz-security-token,/);
});
