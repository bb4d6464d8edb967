/** Members of one cluster in one process, with real sockets between them and for their clients. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { Code } from "../../../src/base/grpc-codes.ts";
import type { RpcError } from "../../../src/client/raw.ts";
import {
  ClusterService,
  KVService,
  LeaseService,
  MaintenanceService,
  type Member,
  WatchCreateRequest,
  WatchService,
} from "../../../src/proto/etcdserverpb.ts";
import { type EtcdError, errors } from "../../../src/server/contract/errors.ts";
import type { BootstrapOptions } from "../../../src/server/contract/options.ts";
import { type InProcess, startInProcess, tempDir } from "../../harness/in-process.ts";
import { freePorts } from "../../harness/server.ts";
import { patience, waitFor } from "../../harness/wait.ts";
import { bytes, text } from "../../server/requests.ts";

const HAS_LEADER = { metadata: { hasleader: "true" } };
const NAMES = ["m1", "m2", "m3", "m4"];

const fails = (error: EtcdError) => (actual: unknown) =>
  (actual as RpcError).code === error.grpcCode && (actual as RpcError).details === error.message;

describe("three members over sockets", () => {
  const dir = tempDir();
  const members = new Map<string, InProcess>();
  let ports: number[];

  const urlOf = (name: string): string => `http://127.0.0.1:${ports[NAMES.indexOf(name)]}`;

  async function start(name: string, server: Partial<BootstrapOptions> = {}): Promise<InProcess> {
    const url = urlOf(name);
    const member = await startInProcess({
      dataDir: join(dir.path, name),
      server: {
        name,
        initialCluster: new Map(NAMES.slice(0, 3).map((each) => [each, [urlOf(each)]] as const)),
        tickMs: 20,
        electionTicks: 10,
        strictReconfigCheck: false,
        snapshotCount: 200,
        snapshotCatchUpEntries: 50,
        ...server,
      },
      etcd: { listenPeer: [{ kind: "tcp", host: "127.0.0.1", port: Number(new URL(url).port), url }] },
    });
    members.set(name, member);
    return member;
  }

  async function stop(name: string): Promise<void> {
    const member = members.get(name)!;
    members.delete(name);
    await member.close();
    assert.deepEqual(member.failures, [], name);
  }

  async function leader(): Promise<InProcess> {
    return waitFor("a leader", () => [...members.values()].find(({ etcd }) => etcd.server.replication.isLeader));
  }

  async function follower(): Promise<InProcess> {
    await leader();
    return [...members.values()].find(({ etcd }) => !etcd.server.replication.isLeader)!;
  }

  before(async () => {
    ports = await freePorts(NAMES.length);
    await Promise.all(NAMES.slice(0, 3).map((name) => start(name)));
  });

  after(async () => {
    for (const name of [...members.keys()]) await stop(name);
    dir.remove();
  });

  async function put(member: InProcess, key: string, value: string): Promise<void> {
    await member.client.unary(KVService.Put, { key: bytes(key), value: bytes(value) }, { timeoutMs: patience(10_000) });
  }

  async function get(member: InProcess, key: string): Promise<string | undefined> {
    const { kvs } = await member.client.unary(KVService.Range, { key: bytes(key) }, { timeoutMs: patience(10_000) });
    return kvs[0] === undefined ? undefined : text(kvs[0].value);
  }

  test("serve puts and linearizable reads the same, at any member", async () => {
    for (const writer of members.values()) {
      await put(writer, "a", writer.url);
      for (const reader of members.values()) assert.equal(await get(reader, "a"), writer.url);
    }
  });

  test("list each other, linearizable or not, without a revision in the header", async () => {
    for (const member of members.values()) {
      for (const linearizable of [true, false]) {
        const { members: listed, header } = await member.client.unary(ClusterService.MemberList, { linearizable });
        assert.deepEqual(listed.map(({ name }) => name).sort(), ["m1", "m2", "m3"]);
        assert.equal(header!.revision, 0);
        assert.equal(header!.memberId, member.etcd.server.memberId);
      }
    }
  });

  test("transfer leadership, which only the leader does, and only to a member", async () => {
    const from = await leader();
    const to = await follower();
    const targetId = to.etcd.server.memberId;
    await assert.rejects(to.client.unary(MaintenanceService.MoveLeader, { targetId }), fails(errors.notLeader));
    await assert.rejects(
      from.client.unary(MaintenanceService.MoveLeader, { targetId: 1n }),
      fails(errors.badLeaderTransferee),
    );
    await from.client.unary(MaintenanceService.MoveLeader, { targetId });
    assert.equal((await leader()).url, to.url);
  });

  test("refuse invalid peer URLs", async () => {
    const member = await follower();
    for (const peerUrls of [[], ["10.0.0.1:2380"], ["ftp://10.0.0.1:2380"], ["http://10.0.0.1"], ["http://a:1/x"]]) {
      const add = member.client.unary(ClusterService.MemberAdd, { peerUrls });
      await assert.rejects(add, fails(errors.memberBadUrls), String(peerUrls));
      const id = member.etcd.server.memberId;
      await assert.rejects(
        member.client.unary(ClusterService.MemberUpdate, { id, peerUrls }),
        fails(errors.memberBadUrls),
      );
    }
  });

  test("add a learner, which serves almost nothing until it is promoted, and remove it", async () => {
    const asked = await follower();
    const peerUrls = [urlOf("m4")];
    const added = await asked.client.unary(ClusterService.MemberAdd, { peerUrls, isLearner: true });
    const { id } = added.member!;
    assert.equal(added.members.length, 4);
    assert.deepEqual({ ...added.member!, id: 0n }, {
      id: 0n,
      name: "",
      peerUrls,
      clientUrls: [],
      isLearner: true,
    } satisfies Member);
    const initialCluster = new Map(NAMES.map((name) => [name, [urlOf(name)]] as const));
    const learner = await start("m4", { newCluster: false, initialCluster });
    assert.equal(learner.etcd.server.replication.isLearner, true);
    const { isLearner } = await learner.client.unary(MaintenanceService.Status, {});
    assert.equal(isLearner, true);
    await learner.client.unary(KVService.Range, { key: bytes("a"), serializable: true });
    const refused = fails(errors.notSupportedForLearner);
    await assert.rejects(get(learner, "a"), refused);
    await assert.rejects(put(learner, "a", "1"), refused);
    await assert.rejects(learner.client.unary(ClusterService.MemberList, {}), refused);
    for (const method of [WatchService.Watch, LeaseService.LeaseKeepAlive]) {
      const stream = learner.client.stream(method as typeof WatchService.Watch);
      await assert.rejects(async () => {
        for await (const _ of stream);
      }, refused);
    }
    const promoted = await waitFor("it is in step", async () => {
      try {
        return await asked.client.unary(ClusterService.MemberPromote, { id });
      } catch (error) {
        assert.ok(fails(errors.learnerNotReady)(error), `${error}`);
        return undefined;
      }
    });
    assert.equal(promoted.members.find((member) => member.id === id)!.isLearner, false);
    await waitFor("it knows", () => !learner.etcd.server.replication.isLearner);
    await put(learner, "a", "promoted");
    const removed = await asked.client.unary(ClusterService.MemberRemove, { id });
    assert.equal(removed.members.length, 3);
    await stop("m4");
  });

  test("bring a member up to date that was away for longer than the log reaches back", async () => {
    const name = (await follower()).etcd.server.options.name;
    await stop(name);
    const others = await leader();
    for (let i = 0; i < 30; i++) {
      await Promise.all(Array.from({ length: 50 }, (_, n) => put(others, `many/${n}`, `${i}`)));
    }
    const back = await start(name);
    assert.ok(back.logger.has("applied snapshot"));
    assert.equal(await get(back, "many/49"), "29");
  });

  test("refuse and end calls that require a leader, when there is none", async () => {
    const last = await leader();
    const stream = last.client.stream(WatchService.Watch, HAS_LEADER);
    await stream.send({ createRequest: WatchCreateRequest.create({ key: bytes("a") }) });
    const patient = last.client.stream(WatchService.Watch);
    await patient.send({ createRequest: WatchCreateRequest.create({ key: bytes("a") }) });
    const ended = (async () => {
      for await (const _ of stream);
    })();
    const names = [...members.keys()].filter((name) => members.get(name) !== last);
    await Promise.all(names.map((name) => stop(name)));
    await assert.rejects(ended, fails(errors.noLeader));
    await assert.rejects(last.client.unary(KVService.Range, { key: bytes("a") }, HAS_LEADER), fails(errors.noLeader));
    await assert.rejects(async () => {
      for await (const _ of last.client.stream(WatchService.Watch, HAS_LEADER));
    }, fails(errors.noLeader));
    const { errors: problems } = await last.client.unary(MaintenanceService.Status, {});
    assert.ok(problems.includes(errors.noLeader.message));
    assert.equal(await serializable(last, "a"), "promoted");
    await assert.rejects(
      last.client.unary(KVService.Put, { key: bytes("late") }, { timeoutMs: 500 }),
      (error) => (error as RpcError).code === Code.DEADLINE_EXCEEDED,
    );
    await Promise.all(names.map((name) => start(name)));
    await put(last, "a", "back");
    const events = patient[Symbol.asyncIterator]();
    assert.equal((await events.next()).value!.created, true);
    assert.equal(text((await events.next()).value!.events[0]!.kv!.value), "back", "who asks for no leader waits");
    patient.cancel();
  });

  async function serializable(member: InProcess, key: string): Promise<string> {
    const { kvs } = await member.client.unary(KVService.Range, { key: bytes(key), serializable: true });
    return text(kvs[0]!.value);
  }
});
