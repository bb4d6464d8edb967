import assert from "node:assert/strict";
import { test } from "node:test";
import { Access } from "../../src/api/calls/access.ts";
import { HeaderWriter } from "../../src/api/calls/header.ts";
import { LongAnswers } from "../../src/api/range/long-answers.ts";
import { Caller, KeyWatch, type WaitingCall } from "../../src/api/services/concurrency.ts";
import { startInProcess } from "../harness/in-process.ts";
import { bytes, text } from "../server/requests.ts";

test("a listener that has seen enough is not called again, though several changes come before its stream is closed", async () => {
  const member = await startInProcess();
  const { server } = member.etcd;
  const call = { onCancel: null, cancelled: false, header: () => undefined } as unknown as WaitingCall;
  const heard: string[] = [];
  const access = new Access(server);
  const long = new LongAnswers(server, new HeaderWriter(server), access);
  const watch = new KeyWatch(
    new Caller(server, access, long, call),
    bytes("vote/"),
    bytes("vote0"),
    server.store.currentRevision + 1,
    ({ kv }) => heard.push(text(kv!.key)) > 0,
  );
  for (const key of ["vote/1", "vote/2", "vote/3"]) {
    const txn = server.store.begin();
    txn.put(bytes(key), bytes("me"), 0n);
    txn.end();
  }
  await watch.done;
  assert.deepEqual(heard, ["vote/1"]);
  await member.close();
});
