import assert from "node:assert/strict";
import { test } from "node:test";
import { CallLog } from "../../../src/api/calls/call-log.ts";
import { type LogFields, nullLogger } from "../../../src/base/log.ts";
import type { CallInfo } from "../../../src/rpc/contract.ts";
import { VirtualClock } from "../../harness/virtual-clock.ts";

test("a finished call is logged with its method, its client, its code and the time it took, as etcd logs it", () => {
  const clock = new VirtualClock();
  const lines: [string, LogFields | undefined][] = [];
  const log = new CallLog(clock, { ...nullLogger, debug: (message, fields) => void lines.push([message, fields]) });
  const call = (path: string) => ({ path, remoteAddress: "10.0.0.1:5" }) as CallInfo;
  const [put, watch] = [call("/etcdserverpb.KV/Put"), call("/etcdserverpb.Watch/Watch")];
  log.onCallStart(watch);
  clock.advance(1000);
  log.onCallStart(put);
  clock.advance(5);
  log.onCallEnd(put, 0);
  log.onCallEnd(watch, 14);
  const stats = (path: string, time: string, code: number): [string, LogFields] => [
    "request stats",
    { "response type": path, remote: "10.0.0.1:5", "time spent": time, code },
  ];
  assert.deepEqual(lines, [stats(put.path, "5ms", 0), stats(watch.path, "1.005s", 14)]);
});
