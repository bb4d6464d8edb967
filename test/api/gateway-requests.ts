/**
 * Requests to the JSON gateway that stock etcd 3.7 and this server must answer the same, in order: later ones see the
 * effects of earlier ones.
 */
export interface GatewayRequest {
  readonly path: string;
  readonly body: string | Uint8Array;
  readonly method?: string;
  readonly headers?: Readonly<Record<string, string>>;
}

const base64 = (text: string): string => Buffer.from(text).toString("base64");
const foo = base64("foo");

const post = (path: string, ...bodies: (string | Uint8Array)[]): GatewayRequest[] =>
  bodies.map((body) => ({ path, body }));

const wellFormed: GatewayRequest[] = [
  ...post(
    "/v3/kv/put",
    `{"key":"${foo}","value":"${base64("bar")}"}`,
    `{"key":"${foo}","value":"${base64("<a>&")}","prev_kv":true}`,
  ),
  ...post(
    "/v3/kv/range",
    `{"key":"${foo}"}`,
    `{"key":"${base64("fo")}","rangeEnd":"${base64("fp")}","sortOrder":"DESCEND","sort_target":"MOD"}`,
    `{"key":"${base64("fo")}","range_end":"${base64("fp")}","sort_order":1,"count_only":true}`,
    `{"key":"${base64("fo")}","range_end":"${base64("fp")}","keys_only":true,"limit":"1"}`,
    `{"key":"${foo}","serializable":true,"nope":{"a":[1,{"b":null}]}}`,
    `{"key":"${foo}","sort_order":"NOPE"}`,
    `{"key":"Zg=="} trailing`,
    `   {"key":"Zg=="}`,
  ),
  ...post("/v3beta/kv/range", `{"key":"Zg=="}`),
  ...post("/v3/kv/rang%65", `{"key":"Zg=="}`),
  ...post(
    "/v3/kv/txn",
    `{"compare":[{"key":"${foo}","target":"VALUE","value":"${base64("<a>&")}","result":"EQUAL"}],` +
      `"success":[{"request_range":{"key":"${foo}"}},{"requestPut":{"key":"dA==","value":"eA==","prevKv":true}}],"failure":[]}`,
    `{"compare":[{"key":"${foo}","target":"VERSION","version":"0","result":"GREATER"}],` +
      `"success":[{"request_txn":{"success":[{"request_delete_range":{"key":"dA==","prev_kv":true}}]}}]}`,
    "{}",
  ),
  ...post("/v3/kv/deleterange", `{"key":"${base64("nope")}","prev_kv":true}`),
  ...post("/v3/kv/compaction", `{"revision":2}`, `{"revision":2}`, `{"revision":99}`, `{"revision":3,"physical":true}`),
  ...post(
    "/v3/lease/grant",
    `{"ID":"77","TTL":"1000"}`,
    `{"ID":"77","TTL":"1000"}`,
    `{"ID":"78","TTL":"9999999999999"}`,
  ),
  ...post("/v3/kv/put", `{"key":"bGVhc2U=","lease":77}`),
  ...post("/v3/lease/timetolive", `{"ID":"79"}`),
  ...post("/v3/lease/leases", "{}"),
  ...post("/v3/kv/lease/leases", ""),
  ...post("/v3/lease/keepalive", `{"ID":"77"}`, `{"ID":"77"} {"ID":5}`, `{"ID":"77"} {"ID":`, "", `{"ID":"x"}`),
  ...post("/v3/lease/revoke", `{"ID":"77"}`),
  ...post("/v3/kv/lease/revoke", `{"ID":"77"}`),
  ...post("/v3/cluster/member/list", "{}", `{"linearizable":true}`),
  ...post("/v3/maintenance/status", "{}"),
  ...post(
    "/v3/maintenance/alarm",
    "{}",
    `{"action":"DEACTIVATE","alarm":"NOSPACE","memberID":"1"}`,
    `{"action":"ACTIVATE","alarm":"NOSPACE","memberID":"1"}`,
    `{"action":"DEACTIVATE","alarm":"NOSPACE","memberID":"1"}`,
  ),
  ...post("/v3/maintenance/hash", "{}"),
  ...post("/v3/maintenance/hashkv", "{}"),
  ...post("/v3/maintenance/defragment", "{}"),
  ...post("/v3/maintenance/transfer-leadership", `{"targetID":"1"}`),
  ...post("/v3/auth/status", "{}"),
  ...post("/v3/auth/authenticate", `{"name":"a","password":"b"}`),
  ...post("/v3/lock/unlock", `{"key":"bA=="}`, "{}"),
  ...post("/v3/lock/lock", `{"name":"bQ==","lease":"4"}`),
  ...post("/v3/election/campaign", `{"name":"ZQ==","value":"dg==","lease":"4"}`),
  ...post("/v3/election/leader", `{"name":"ZQ=="}`),
  ...post("/v3/election/proclaim", "{}", `{"leader":{"key":"eA==","rev":"3"}}`),
  ...post("/v3/election/resign", "{}", `{"leader":{"key":"eA==","rev":"3"}}`),
];

const refused: GatewayRequest[] = [
  ...post(
    "/v3/kv/range",
    "",
    "   ",
    `{"key":"${base64("fo")}","sort_order":9}`,
    `{"key":"${foo}","revision":99}`,
    `{"key":"${foo}","revision":2}`,
  ),
  ...post("/v3/kv/put", "{}", `{"key":"Zg==","lease":"7777"}`, `{"key":"Zg==","lease":77,"ignoreLease":true}`),
  ...post("/v3/kv/put", JSON.stringify({ key: "Zg==", value: Buffer.alloc(1600 * 1024).toString("base64") })),
  ...post("/v3/kv/put", JSON.stringify({ key: "Zg==", value: Buffer.alloc(2100 * 1024).toString("base64") })),
  ...post(
    "/v3/kv/txn",
    `{"compare":[{"key":"${foo}","version":1,"mod_revision":2}]}`,
    `{"success":[{}]}`,
    `{"success":[null]}`,
    `{"success":{}}`,
    `{"success":"x"}`,
    `{"success":[5]}`,
    `{"success":[[]]}`,
    `{"success":[{"request_put":{"key":"YQ=="}},{"request_put":{"key":"YQ=="}}]}`,
  ),
  ...post("/v3/election/observe", `{"name":5}`),
  ...post("/v3/nope", "{}"),
  ...post("/v3/", "{}"),
  ...post("/v3beta/nope", "{}"),
  ...post("/v3/kv/range/", `{"key":"Zg=="}`),
  { path: "/v3/kv/range", body: "", method: "GET" },
  { path: "/v3/kv/range", body: "{}", method: "PUT" },
  { path: "/v3/kv/range", body: "", method: "DELETE" },
  { path: "/v3/kv/range", body: "", method: "OPTIONS" },
  { path: "/v3/watch", body: "", method: "GET" },
  ...["x", "S", "1s", "-1S", "+5S", "0S", "1n", "99999999999H", "9223372036854775808n", "1 S"].map((timeout) => ({
    path: "/v3/kv/range",
    body: `{"key":"Zg=="}`,
    headers: { "grpc-timeout": timeout },
  })),
  ...["//v3/kv/range", "/v3/kv/../kv/range", "/v3", "//version", "/v3%2fkv/range", "/%763/kv/range"].map((path) => ({
    path,
    body: `{"key":"Zg=="}`,
  })),
  { path: "/v3/kv/range", body: `{"key":"Zg=="}`, headers: { "grpc-timeout": "10S" } },
  { path: "/v3/election/observe", body: `{"name":"bm9uZQ=="}`, headers: { "grpc-timeout": "200m" } },
];

const values: GatewayRequest[] = post(
  "/v3/kv/range",
  ...[
    "2.0",
    "20e-1",
    "3.0e0",
    "2.5",
    '" 3"',
    '"3 "',
    '"03"',
    "3.000000",
    "300e-2",
    "30e-2",
    '"3x"',
    '"3 x"',
    "9223372036854775808",
    '"-9223372036854775809"',
    "-1",
  ].map((revision) => `{"key":"${foo}","revision":${revision}}`),
  ...["true", "null", "{}", "[1]", '""', "0", '"3"', "1e30"].map(
    (revision) => `{"key":"${foo}","revision":${revision}}`,
  ),
  ...["true", '"true"', "1", "null"].map((flag) => `{"key":"${foo}","serializable":${flag}}`),
  ...[..."Zm9v= Zm8 Zm8= Zg Zg== Zg= Z _-8= _+8= Zm\\n9v Zm9v\\n Zm9v=AAA Zh== +/8".split(" "), "Zm9v Zm9v"].map(
    (key) => `{"key":"${key}"}`,
  ),
  `{"key":"${foo}","key":"${foo}"}`,
  `{"key":"${foo}","range_end":null,"rangeEnd":"AA=="}`,
);

const malformed: GatewayRequest[] = post(
  "/v3/kv/range",
  ...["[]", "5", '"x"', "null", "true", "tru", "trux", "nul ", "{", '{"key"', '{"key":}', '{"key" 5}', "}", "hello"],
  ...['{"key":"Zg==",}', '{"key":"Zg==" "a"}', "{key:1}", '{"a":[1,]}', '{"a":[1 2]}', '{"a":-}', '{"a":1.}'],
  ...[
    '{"key":"\\ud800"}',
    '{"key":"\\ud800abcdef"}',
    '{"x":"\\ud800\\u0041"}',
    '{"x":"\\ude00\\ud83d"}',
    '{"\\ud800":1} ',
  ],
  ...['{"a":1e}', '{"a":01}', '{"a":"\\x"}', '{"a":"\\u12g4"}', '{"a":"\n"}', `{"a":'x'}`, "é", "\u0001"],
  '  \n {\n "key":"é", "x":4, "limit":"q"}',
  Buffer.from([...Buffer.from('{"key":"'), 0xff, ...Buffer.from('"}')]),
  Buffer.from([...Buffer.from('{"nope":"'), 0xff, ...Buffer.from('"}')]),
);

/** Answered with a stream that does not end by itself. */
export const watches: readonly GatewayRequest[] = post(
  "/v3/watch",
  `{"create_request":{"key":"${foo}","start_revision":"3"}}`,
  `{"create_request":{"key":"${foo}","start_revision":"3","prev_kv":true,"filters":["NODELETE"],"watch_id":"7"}}` +
    `{"create_request":{"key":"${foo}","watch_id":"7"}}{"cancel_request":{"watch_id":7}}`,
  `{"create_request":{"key":"${foo}","start_revision":"1"}}`,
  `{"create_request":{"key":"","range_end":"AA==","start_revision":3,"filters":["NOPUT",0]}}`,
);

export const requests: readonly GatewayRequest[] = [...wellFormed, ...refused, ...values, ...malformed];
