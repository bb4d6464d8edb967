/** Large reads. */
import { freemem } from "node:os";
import {
  KVService,
  PutRequest,
  RangeRequest,
  RequestOp,
  RangeRequest_SortOrder as SortOrder,
  RangeRequest_SortTarget as SortTarget,
} from "../../src/proto/etcdserverpb.ts";
import { keyOf } from "../load/unary.ts";
import { type Bench, type Case, LIMIT_MS } from "./case.ts";
import { type Answer, HeavyClient, post, type Reader } from "./heavy.ts";

const all = { key: Buffer.from("/bench/"), rangeEnd: Buffer.from("/bench0") };
const PAGE = 500;
const MIB = 1024 * 1024;
const RANGES_PER_TXN = 100;

/** Sends one request and notes the result. */
async function ask(bench: Bench, request: Partial<RangeRequest>): Promise<void> {
  const client = new HeavyClient(bench.port);
  noteAll(bench, [await client.ask(KVService.Range, request, { timeoutMs: LIMIT_MS })]);
  client.close();
}

/** Throws when one is not a whole answer: such a case shows nothing. */
function noteAll(bench: Bench, answers: readonly Answer[]): void {
  noteBytes(bench, answers);
  const [bad] = answers.filter(({ status }) => status !== 0);
  if (bad === undefined) return;
  const how = bad.status < 0 ? "broke off" : `ended with ${bad.status}`;
  throw new Error(`an answer ${how} after ${bad.bytes} bytes: ${bad.message.slice(0, 80)}`);
}

function noteBytes(bench: Bench, answers: readonly Answer[]): void {
  const bytes = answers.reduce((sum, answer) => sum + answer.bytes, 0);
  if (bytes > MIB) bench.note(`${Math.round(bytes / MIB)} MiB`);
}

const single = (name: string, what: string, request: (bench: Bench) => Partial<RangeRequest>): Case => ({
  name,
  what,
  data: "keys",
  run: (bench) => ask(bench, request(bench)),
});

/** Many concurrent lists, each on its own connection. Slow and non-reading clients are abandoned. */
function lists(name: string, what: string, count: number, reader: (sizes: Bench["sizes"]) => Reader): Case {
  return {
    name,
    what,
    data: "large",
    async run(bench) {
      // Stock etcd holds each answer twice while sending it: too large a case would end the machine, not the case.
      const needBytes = bench.side === "stock" ? 2.5 * count * bench.sizes.largeMib * MIB : 0;
      if (needBytes > freemem()) {
        return bench.note(
          `left out: it would take ${Math.round(needBytes / 1024 / MIB)} GiB; give a smaller --large-mib`,
        );
      }
      const how = reader(bench.sizes);
      const timeoutMs = how === "fast" ? LIMIT_MS : bench.sizes.seconds * 1000;
      const clients = Array.from(
        { length: count },
        () => new HeavyClient(bench.port, how === "fast" ? undefined : 65_535),
      );
      const answers = await Promise.all(clients.map((c) => c.ask(KVService.Range, all, { reader: how, timeoutMs })));
      if (how === "fast") noteAll(bench, answers);
      else noteBytes(bench, answers);
      for (const client of clients) client.close();
    },
  };
}

/** Sorted ranges, each over a different hundredth of the keys. */
function rangesInTxn(withPut: boolean): Case {
  return {
    name: withPut ? "txn-put" : "txn",
    what: `${RANGES_PER_TXN} sorted ranges of a tenth of the keys in a transaction${withPut ? " with a put" : ""}`,
    data: "keys",
    async run(bench) {
      const { keys } = bench.sizes;
      const success = Array.from({ length: RANGES_PER_TXN - (withPut ? 1 : 0) }, (_, i) => {
        const from = Math.floor((i * keys * 0.9) / RANGES_PER_TXN);
        const key = keyOf(from);
        const rangeEnd = keyOf(from + Math.floor(keys / 10));
        const sort = { sortOrder: SortOrder.DESCEND, sortTarget: SortTarget.MOD, limit: 1 };
        return RequestOp.create({ requestRange: RangeRequest.create({ key, rangeEnd, ...sort }) });
      });
      const requestPut = PutRequest.create({ key: Buffer.from("/txn"), value: Buffer.from("v") });
      if (withPut) success.push(RequestOp.create({ requestPut }));
      const client = new HeavyClient(bench.port);
      noteAll(bench, [await client.ask(KVService.Txn, { success }, { timeoutMs: LIMIT_MS })]);
      client.close();
    },
  };
}

/** One operation for each key. */
function opsInTxn(name: string, what: string, op: (key: Buffer) => Partial<RequestOp>): Case {
  return {
    name,
    what: `a transaction that ${what} every key by itself, 100,000 at most`,
    data: "keys",
    async run(bench) {
      const count = Math.min(bench.sizes.keys, TXN_OPS_MAX);
      const success = Array.from({ length: count }, (_, i) => RequestOp.create(op(keyOf(i))));
      const client = new HeavyClient(bench.port);
      noteAll(bench, [await client.ask(KVService.Txn, { success }, { timeoutMs: LIMIT_MS })]);
      client.close();
    },
  };
}

/** The limit that the members are started with. */
const TXN_OPS_MAX = 100_000;

const pages: Case = {
  name: "pages",
  what: `all keys in pages of ${PAGE}, one after the other`,
  data: "keys",
  async run(bench) {
    const client = new HeavyClient(bench.port);
    for (let from = 0; from < bench.sizes.keys; from += PAGE) {
      const request = { ...all, key: keyOf(from), limit: PAGE };
      const answer = await client.ask(KVService.Range, request, { timeoutMs: LIMIT_MS });
      if (answer.status !== 0) return noteAll(bench, [answer]);
    }
    client.close();
  },
};

const gzip: Case = {
  name: "gzip",
  what: "list of all large values by a client that compresses with gzip",
  data: "large",
  async run(bench) {
    const client = new HeavyClient(bench.port);
    const headers = { "grpc-encoding": "gzip", "grpc-accept-encoding": "gzip" };
    noteAll(bench, [await client.ask(KVService.Range, all, { headers, timeoutMs: LIMIT_MS })]);
    client.close();
  },
};

const gatewayRange: Case = {
  name: "gateway-range",
  what: "range over all large values through the JSON gateway",
  data: "large",
  async run(bench) {
    const body = JSON.stringify({ key: all.key.toString("base64"), range_end: all.rangeEnd.toString("base64") });
    noteAll(bench, [await post(bench.port, "/v3/kv/range", body, LIMIT_MS)]);
  },
};

const gatewayBody: Case = {
  name: "gateway-body",
  what: "a range with a body of 1.2 MB of JSON with 100,000 members, ten times",
  data: "empty",
  async run(bench) {
    const members = Array.from({ length: 100_000 }, (_, i) => `"m${i}":${i % 10}`);
    const body = `{"key":"Zm9v",${members.join(",")}}`;
    const answers: Answer[] = [];
    for (let i = 0; i < 10; i++) answers.push(await post(bench.port, "/v3/kv/range", body, LIMIT_MS));
    noteAll(bench, answers);
  },
};

export const rangeCases: readonly Case[] = [
  single("count", "count of all keys", () => ({ ...all, countOnly: true })),
  single("keys-only", "all keys without their values", () => ({ ...all, keysOnly: true })),
  single("sorted", "the key changed last: sorted by MOD, limit 1", () => ({
    ...all,
    sortOrder: SortOrder.DESCEND,
    sortTarget: SortTarget.MOD,
    limit: 1,
  })),
  single("sorted-values", "all keys, sorted by VALUE", () => ({
    ...all,
    sortOrder: SortOrder.DESCEND,
    sortTarget: SortTarget.VALUE,
  })),
  single("filtered", "keys changed in the last revisions: filtered by revision", ({ sizes }) => ({
    ...all,
    minModRevision: Math.floor(sizes.keys / 100) + 1,
    limit: 10,
  })),
  single("list", "all keys with their values", () => all),
  {
    name: "list-stream",
    what: "the same, as a stream",
    data: "keys",
    async run(bench) {
      const client = new HeavyClient(bench.port);
      noteAll(bench, [await client.ask(KVService.RangeStream, all, { timeoutMs: LIMIT_MS })]);
      client.close();
    },
  },
  pages,
  rangesInTxn(false),
  rangesInTxn(true),
  opsInTxn("txn-gets", "gets", (key) => ({ requestRange: RangeRequest.create({ key }) })),
  opsInTxn("txn-puts", "puts", (key) => ({ requestPut: PutRequest.create({ key, value: Buffer.from("v") }) })),
  lists("large-1", "list of all large values", 1, () => "fast"),
  lists("large-8", "eight of them at once", 8, () => "fast"),
  lists("large-64", "64 of them at once", 64, () => "fast"),
  lists("large-slow", "eight at once that read 1 MB a second", 8, () => ({ bytesPerSecond: MIB })),
  lists("large-unread", "64 at once that read nothing", 64, () => "never"),
  gzip,
  gatewayRange,
  gatewayBody,
];
