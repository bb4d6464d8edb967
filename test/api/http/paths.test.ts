import assert from "node:assert/strict";
import { test } from "node:test";
import { isBelow, parseTarget, redirectTo } from "../../../src/api/http/paths.ts";

test("paths that are not clean redirect as in Go's ServeMux", () => {
  const redirects: readonly (readonly [string, string | undefined])[] = [
    ["/version", undefined],
    ["/version?a=//b", undefined],
    ["/version/", undefined],
    ["/", undefined],
    ["//version", "/version"],
    ["//version?", "/version"],
    ["//version?a=b%2f;", "/version?a=b%2f;"],
    ["//", "/"],
    ["/..", "/"],
    ["/a/..", "/"],
    ["/./version", "/version"],
    ["/v3/../version?x", "/version?x"],
    ["/v3", "/v3/"],
    ["/v3?a", "/v3/?a"],
    ["/v3/kv/..", "/v3/"],
    ["/v3/kv/.", "/v3/kv"],
    ["/v3/kv/range//", "/v3/kv/range/"],
    ["/%2e%2e/version", undefined],
    ["/x%2f%2fversion", undefined],
    ["//vers%20ion'<>", "/vers%2520ion%2527%253C%253E"],
    ["http://other//version", "/version"],
    ["http://other", "/"],
  ];
  for (const [target, to] of redirects) assert.equal(redirectTo(parseTarget(target)!), to, target);
});

test("a target is a path, escaped and unescaped, with a query and an optional host", () => {
  assert.deepEqual(parseTarget("http://h:1/a%20b?c?d"), {
    path: "/a b",
    escapedPath: "/a%20b",
    query: "c?d",
    host: "h:1",
  });
  assert.equal(parseTarget("/%zz"), undefined);
  assert.ok(isBelow(parseTarget("/%763/kv/range")!, "v3"));
  assert.ok(!isBelow(parseTarget("/v3%2fkv/range")!, "v3"));
  assert.ok(!isBelow(parseTarget("/v3")!, "v3"));
});
