import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { type InProcess, startInProcess } from "../harness/in-process.ts";
import { requireStockEtcd, stockEtcd, stockEtcdVersion } from "../harness/programs.ts";
import { type Server, startServer } from "../harness/server.ts";
import { type GatewayRequest, requests, watches } from "./gateway-requests.ts";

/** KVORUM_STOCK_ETCD selects the etcd to compare with. Before 3.7 its gateway answered in another style. */
const version = await stockEtcdVersion();
const skip = version !== undefined && version < 3.007 ? `stock etcd is ${version}, before 3.7` : requireStockEtcd();

describe("the JSON gateway beside stock etcd's", { skip }, () => {
  let stock: Server;
  let ours: InProcess;
  before(async () => {
    stock = await startServer(stockEtcd());
    ours = await startInProcess();
  });
  after(async () => {
    await ours.close();
    await stock.close();
  });

  test("answers every request with the same bytes", async () => {
    for (const request of requests) {
      assert.equal(await answer(ours.url, request), await answer(stock.url, request), describeRequest(request));
    }
  });

  test("streams the same pieces", async () => {
    for (const request of watches) {
      assert.equal(
        await answer(ours.url, request, 400),
        await answer(stock.url, request, 400),
        describeRequest(request),
      );
    }
  });
});

const describeRequest = ({ method = "POST", path, body }: GatewayRequest): string =>
  `${method} ${path} ${Buffer.from(body).toString().slice(0, 200)}`;

/** Status, meaningful headers, and body; for a stream, what arrives within `streamMs`. */
async function answer(url: string, request: GatewayRequest, streamMs = 5000): Promise<string> {
  const { path, body, method = "POST", headers = {} } = request;
  const controller = new AbortController();
  const timer = setTimeout(() => controller.abort(), streamMs);
  let text = "";
  let head = "";
  try {
    const response = await fetch(url + path, {
      method,
      headers,
      body: method === "GET" ? null : Buffer.from(body),
      signal: controller.signal,
    });
    head = `${response.status} ${response.headers.get("content-type")} ${response.headers.get("grpc-metadata-content-type")}`;
    const decoder = new TextDecoder();
    for await (const part of response.body!) text += decoder.decode(part, { stream: true });
  } catch (error) {
    text += `!${(error as Error).name}`;
  } finally {
    clearTimeout(timer);
  }
  return `${head} ${normalize(text)}`;
}

/** Without the differences between any two servers, and the spaces that depend on Go's build. */
function normalize(text: string): string {
  return text
    .replaceAll("\u00a0", " ")
    .replace(/("(?:[^"\\]|\\.)*")|\s+/g, (_, string: string | undefined) => string ?? "")
    .replace(/"(cluster_id|member_id|leader|raft\w+|dbSize\w*|hash)":"?\d+"?/g, '"$1":…')
    .replace(/"ID":"\d{15,}"/g, '"ID":…')
    .replace(/http:\/\/[\w.]+:\d+/g, "http://…");
}
