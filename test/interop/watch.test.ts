/** Watches on stock etcd and on this server: the same responses in the same order, event for event. */
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import type { RawStream } from "../../src/client/raw.ts";
import {
  CompactionRequest,
  DeleteRangeRequest,
  KVService,
  LeaseGrantRequest,
  LeaseRevokeRequest,
  LeaseService,
  PutRequest,
  RequestOp,
  TxnRequest,
  WatchCancelRequest,
  WatchCreateRequest,
  WatchProgressRequest,
  type WatchRequest,
  type WatchResponse,
  WatchService,
} from "../../src/proto/etcdserverpb.ts";
import { ourEtcd, requireStockEtcd, stockEtcd } from "../harness/programs.ts";
import { seeded } from "../harness/random.ts";
import { type Server, startServers } from "../harness/server.ts";
import { patience } from "../harness/wait.ts";
import { outcome, show } from "./compare.ts";
import { awkwardKeys, type HistoryState, nextStep, prefixEnd, type Step } from "./history.ts";

const bytes = (text: string) => Buffer.from(text);
const step = (method: unknown, request: unknown) => ({ method, request }) as Step;
const put = (key: string, value: string, fields: Partial<PutRequest> = {}) =>
  step(KVService.Put, PutRequest.create({ key: bytes(key), value: bytes(value), ...fields }));
const del = (key: string, end = "") =>
  step(KVService.DeleteRange, DeleteRangeRequest.create({ key: bytes(key), rangeEnd: bytes(end) }));
const create = (fields: Partial<WatchCreateRequest>) => ({ createRequest: WatchCreateRequest.create(fields) });
const prefix = (key: string) => ({ key: bytes(key), rangeEnd: prefixEnd(bytes(key)) });

/** Both servers after the same steps; the same conversation is held with each and must give the same result. */
describe("a watch", { skip: requireStockEtcd() }, () => {
  let ours: Server;
  let stock: Server;
  before(async () => {
    [ours, stock] = (await startServers([ourEtcd(), stockEtcd()])) as [Server, Server];
  });
  after(() => Promise.all([ours?.close(), stock?.close()]));

  /** Performs the steps on both and returns the revision at their end. */
  async function both(...steps: Step[]): Promise<number> {
    let revision = 0;
    for (const each of steps) {
      const [a, b] = await Promise.all([outcome(ours.client, each), outcome(stock.client, each)]);
      assert.equal(a.text, b.text);
      revision = b.revision ?? revision;
    }
    return revision;
  }

  /** Holds the conversation with both servers and compares all responses. */
  async function same(conversation: (talk: Talk) => Promise<void>): Promise<WatchResponse[]> {
    const talks = [new Talk(ours), new Talk(stock)] as const;
    try {
      // Steps in a conversation change both servers, so one conversation must not wait for the other.
      for (const talk of talks) await conversation(talk);
      assert.equal(talks[0].transcript(), talks[1].transcript(), "ours (actual) and stock (expected) differ");
      return talks[0].responses;
    } finally {
      for (const talk of talks) talk.close();
    }
  }

  test("from a past revision replays every event in order, then continues with new ones", async () => {
    const start = await both(
      put("past/a", "1"),
      put("past/a", "2"),
      put("past/b", "1"),
      del("past/a"),
      put("past/a", "3"),
    );
    const responses = await same(async (talk) => {
      await talk.say(create({ ...prefix("past/"), startRevision: start - 4 }));
      await talk.untilEvents(5);
      await talk.act(put("past/c", "new"));
      await talk.untilEvents(6);
    });
    assert.equal(responses[0]?.created, true);
  });

  test("from now on gets new events, with previous values when requested", async () => {
    await both(put("now/a", "old"));
    await same(async (talk) => {
      await talk.say(create({ ...prefix("now/"), prevKv: true }));
      await talk.until((response) => response.created);
      await talk.act(put("now/a", "new"), del("now/a"), put("now/b", "x"), del("now/", "now0"));
      await talk.untilEvents(4);
    });
  });

  test("from a past revision gives previous values unless they were compacted", async () => {
    const start = await both(
      put("prev/a", "1"),
      put("prev/a", "2"),
      del("prev/a"),
      put("prev/a", "3"),
      put("prev/a", "4"),
    );
    await same(async (talk) => {
      await talk.say(create({ ...prefix("prev/"), startRevision: start - 4, prevKv: true }));
      await talk.untilEvents(5);
    });
  });

  test("from a future revision waits for it", async () => {
    const now = await both(put("future/a", "1"));
    await same(async (talk) => {
      await talk.say(create({ ...prefix("future/"), startRevision: now + 3 }));
      await talk.until((response) => response.created);
      await talk.act(put("future/a", "too early"), put("future/a", "too early"), put("future/a", "seen"));
      await talk.untilEvents(1);
    });
  });

  test("with filters leaves out puts, deletes, or both", async () => {
    for (const filters of [[0], [1], [0, 1]] as (0 | 1)[][]) {
      await same(async (talk) => {
        await talk.say(create({ ...prefix("filter/"), filters }));
        await talk.until((response) => response.created);
        await talk.act(put("filter/a", "1"), del("filter/a"), put("filter/b", "1"));
        if (filters.length < 2) await talk.untilEvents(filters[0] === 0 ? 1 : 2);
        await talk.say({ progressRequest: WatchProgressRequest.create() });
        await talk.until((response) => response.events.length === 0 && !response.created);
      });
      await both(del("filter/", "filter0"));
    }
  });

  test("of one transaction gets all its events in one response", async () => {
    const ops = ["t/1", "t/2", "t/3"].map((key) =>
      RequestOp.create({ requestPut: PutRequest.create({ key: bytes(key) }) }),
    );
    const responses = await same(async (talk) => {
      await talk.say(create(prefix("t/")));
      await talk.until((response) => response.created);
      await talk.act(step(KVService.Txn, TxnRequest.create({ success: ops })));
      await talk.untilEvents(3);
    });
    assert.equal(responses.at(-1)?.events.length, 3);
  });

  test("sees the deletion of a revoked lease's keys", async () => {
    await both(step(LeaseService.LeaseGrant, LeaseGrantRequest.create({ id: 90n, ttl: 500 })));
    await both(put("leased/a", "1", { lease: 90n }), put("leased/b", "1", { lease: 90n }));
    await same(async (talk) => {
      await talk.say(create({ ...prefix("leased/"), prevKv: true }));
      await talk.until((response) => response.created);
      await talk.act(step(LeaseService.LeaseRevoke, LeaseRevokeRequest.create({ id: 90n })));
      await talk.untilEvents(2);
    });
  });

  test("with fragments splits one revision's events over responses, all but the last marked", async () => {
    const value = "x".repeat(700_000);
    const responses = await same(async (talk) => {
      await talk.say(create({ ...prefix("frag/"), fragment: true, startRevision: (await talk.revision()) + 1 }));
      await talk.until((response) => response.created);
      await talk.act(...["1", "2"].map((name) => put(`frag/${name}`, value)));
      await talk.untilEvents(2);
    });
    assert.ok(responses.length >= 2);
    await both(put("frag/3", value));
    const deletion = await both(step(KVService.DeleteRange, DeleteRangeRequest.create(prefix("frag/"))));
    const replay = await same(async (talk) => {
      await talk.say(create({ ...prefix("frag/"), fragment: true, prevKv: true, startRevision: deletion }));
      await talk.untilEvents(3);
    });
    const fragments = replay.filter(({ created }) => !created).map(({ fragment }) => fragment);
    assert.ok(fragments.length >= 2 && fragments.slice(0, -1).every(Boolean) && fragments.at(-1) === false);
  });

  test("from a compacted revision is cancelled with the compact revision", async () => {
    const now = await both(put("compact/a", "1"), put("compact/a", "2"), put("compact/a", "3"));
    await both(step(KVService.Compact, CompactionRequest.create({ revision: now - 1, physical: true })));
    const responses = await same(async (talk) => {
      await talk.say(create({ ...prefix("compact/"), startRevision: now - 2 }));
      await talk.until((response) => response.canceled);
    });
    assert.equal(responses.at(-1)?.compactRevision, now - 1);
    await same(async (talk) => {
      await talk.say(create({ ...prefix("compact/"), startRevision: now - 1 }));
      await talk.untilEvents(2);
    });
  });

  test("has the id chosen by the client, and one chosen twice is refused", async () => {
    await same(async (talk) => {
      await talk.say(create({ key: bytes("id"), watchId: 42 }));
      await talk.until((response) => response.created);
      await talk.say(create({ key: bytes("id"), watchId: 42 }));
      await talk.untilResponses(2);
      await talk.say(create({ key: bytes("id") }));
      await talk.untilResponses(3);
    });
  });

  test("ends with cancel, and the others on the stream continue", async () => {
    await same(async (talk) => {
      await talk.say(create({ key: bytes("cancel/a") }));
      await talk.untilResponses(1);
      await talk.say(create({ key: bytes("cancel/b") }));
      await talk.untilResponses(2);
      await talk.say({ cancelRequest: WatchCancelRequest.create({ watchId: 0 }) });
      await talk.until((response) => response.canceled);
      await talk.act(put("cancel/a", "1"), put("cancel/b", "1"));
      await talk.untilEvents(1);
    });
  });

  test("with bad ranges is refused as etcd does", async () => {
    for (const [key, rangeEnd] of [
      ["b", "a"],
      ["b", "b"],
      ["", ""],
      ["", "\0"],
      ["\0", "\0"],
      ["a", "\0"],
    ] as const) {
      await same(async (talk) => {
        await talk.say(create({ key: bytes(key), rangeEnd: bytes(rangeEnd) }));
        await talk.untilResponses(1);
      });
    }
  });

  test("answers a progress request with the store's revision", async () => {
    await same(async (talk) => {
      await talk.say(create({ key: bytes("progress") }));
      await talk.untilResponses(1);
      await talk.say({ progressRequest: WatchProgressRequest.create() });
      await talk.untilResponses(2);
    });
  });

  test("of random histories gets the same events from every start", async () => {
    const random = seeded(7);
    const first = await both(put("k/00", "begin"));
    const state: HistoryState = { revision: first, compacted: first, leases: [] };
    for (let i = 0; i < 300; i++) {
      const next = nextStep(random, state, { keys: awkwardKeys(), opsPerTxnMax: 5, depthMax: 1 });
      if (next.method.path === KVService.Compact.path || next.method.path.includes("HashKV")) continue;
      const [, answer] = await Promise.all([outcome(ours.client, next), outcome(stock.client, next)]);
      state.revision = Math.max(state.revision, answer.revision ?? 0);
    }
    const end = await both(put("zz-end", "1"));
    for (let i = 0; i < 6; i++) {
      const startRevision = first + random.below(end - first);
      await same(async (talk) => {
        const all = { key: bytes("\0"), rangeEnd: bytes("\0") };
        await talk.say(create({ ...all, startRevision, prevKv: i % 2 === 0 }));
        await talk.until((response) => response.events.some(({ kv }) => kv!.modRevision === end));
      });
    }
  });
});

/** One Watch stream and everything received on it. */
class Talk {
  readonly responses: WatchResponse[] = [];
  readonly #server: Server;
  readonly #stream: RawStream<WatchRequest, WatchResponse>;
  readonly #incoming: AsyncIterator<WatchResponse>;

  constructor(server: Server) {
    this.#server = server;
    this.#stream = server.client.stream(WatchService.Watch, { timeoutMs: patience(20_000) });
    this.#incoming = this.#stream[Symbol.asyncIterator]();
  }

  say(request: Partial<WatchRequest>): Promise<void> {
    return this.#stream.send(request);
  }

  /** Changes the store of this server only. */
  async act(...steps: Step[]): Promise<void> {
    for (const each of steps) await outcome(this.#server.client, each);
  }

  async revision(): Promise<number> {
    return (await this.#server.client.unary(KVService.Range, { key: bytes("a") })).header!.revision;
  }

  async until(found: (response: WatchResponse) => boolean | undefined): Promise<void> {
    for (;;) {
      const { value, done } = await this.#incoming.next();
      if (done) throw new Error(`the stream ended after ${this.transcript()}`);
      this.responses.push(value);
      if (found(value)) return;
    }
  }

  untilResponses(count: number): Promise<void> {
    return this.responses.length >= count ? Promise.resolve() : this.until(() => this.responses.length >= count);
  }

  untilEvents(count: number): Promise<void> {
    return this.until(() => this.responses.flatMap(({ events }) => events).length >= count);
  }

  /**
   * The responses, as text. How events are split into responses is the server's choice (etcd joins what is available),
   * except within a revision; so events are listed by revision, the other responses one by one.
   */
  transcript(): string {
    const lines = this.responses.flatMap<object>(({ header, events, fragment: _, ...rest }) =>
      events.length > 0
        ? events.map((event) => ({ watchId: rest.watchId, event }))
        : [{ ...rest, revision: header?.revision }],
    );
    return lines.map(show).join("\n");
  }

  close(): void {
    this.#stream.cancel();
  }
}
