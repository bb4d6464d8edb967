/** Closed-loop unary load: when a call ends, the next one starts. */
import {
  Compare,
  Compare_CompareTarget as CompareTarget,
  KVService,
  PutRequest,
  RangeRequest,
  RequestOp,
  TxnRequest,
  TxnResponse,
} from "../../src/proto/etcdserverpb.ts";
import { type Call, framed, H2Client } from "./h2-client.ts";
import type { Job, JobResult } from "./jobs.ts";
import { Meter } from "./meter.ts";

type UnaryJob = Exclude<Job, { kind: "watch" | "keepalive" }>;

/** Creates the requests of one kind and checks their answers. */
interface Requests {
  readonly path: string;
  /** The body of the `index`th call; `slot` numbers the calls in flight. */
  next(index: number, slot: number): Buffer;
  /** False for an unexpected answer. */
  check?(slot: number, buffer: Buffer, start: number, end: number): boolean;
}

export function runUnary(job: UnaryJob): Promise<JobResult> {
  const requests = requestsOf(job);
  const meter = new Meter(job.warmUpSeconds ?? 0);
  const slots = job.connections * job.concurrency;
  return new Promise((resolve) => {
    let started = 0;
    let running = slots;
    let stopping = false;
    const clients: H2Client[] = [];
    const start = (client: H2Client, call: Call) => {
      call.startedMs = performance.now();
      client.send(call, requests.next(started++, call.tag), true);
    };
    const finish = () => {
      if (--running > 0) return;
      for (const client of clients) client.close();
      resolve(meter.result());
    };
    for (let c = 0; c < job.connections; c++) {
      const client: H2Client = new H2Client(job.port, requests.path, {
        message(call, buffer, from, to) {
          if (requests.check && !requests.check(call.tag, buffer, from, to)) meter.failed++;
        },
        ended(call, status) {
          const now = performance.now();
          if (status !== 0) meter.failed++;
          else meter.add(call.startedMs, now);
          stopping ||= meter.secondsRun(now) >= (job.seconds ?? Number.POSITIVE_INFINITY);
          if (stopping || status === -1 || started >= (job.count ?? Number.POSITIVE_INFINITY)) finish();
          else {
            client.reopen(call);
            start(client, call);
          }
        },
      });
      clients.push(client);
      for (let s = 0; s < job.concurrency; s++) start(client, client.open(c * job.concurrency + s));
    }
  });
}

function requestsOf(job: UnaryJob): Requests {
  switch (job.kind) {
    case "put":
      return puts(job.keys, job.valueSize);
    case "fill":
      return fills(job.opsPerTxn, job.valueSize);
    case "update":
      return updates(job.keysPerCall, job.valueSize, job.connections * job.concurrency);
    case "get":
      return gets(job.keys, job.serializable);
  }
}

const DIGITS = 10;

/** `/bench/` and ten digits. */
export function keyOf(index: number): Buffer {
  return Buffer.from(`/bench/${String(index).padStart(DIGITS, "0")}`);
}

function writeDigits(buffer: Buffer, end: number, index: number): void {
  let rest = index;
  for (let i = 1; i <= DIGITS; i++) {
    buffer[end - i] = 48 + (rest % 10);
    rest = Math.floor(rest / 10);
  }
}

/** A request in which only the key changes: encoded once, its digits written in place. */
function patched(path: string, message: Uint8Array, keys: number): Requests {
  const body = framed(message);
  const digitsEnd = body.indexOf(keyOf(0)) + keyOf(0).length;
  return {
    path,
    next() {
      writeDigits(body, digitsEnd, Math.floor(Math.random() * keys));
      return body;
    },
  };
}

function puts(keys: number, valueSize: number): Requests {
  const value = Buffer.alloc(valueSize, "v");
  return patched(KVService.Put.path, PutRequest.encode(PutRequest.create({ key: keyOf(0), value })), keys);
}

function gets(keys: number, serializable: boolean): Requests {
  return patched(KVService.Range.path, RangeRequest.encode(RangeRequest.create({ key: keyOf(0), serializable })), keys);
}

function fills(opsPerTxn: number, valueSize: number): Requests {
  const value = Buffer.alloc(valueSize, "v");
  return {
    path: KVService.Txn.path,
    next(index) {
      const success = Array.from({ length: opsPerTxn }, (_, i) =>
        RequestOp.create({ requestPut: PutRequest.create({ key: keyOf(index * opsPerTxn + i), value }) }),
      );
      return framed(TxnRequest.encode(TxnRequest.create({ success })));
    },
    check: (_slot, buffer, start, end) => TxnResponse.decode(buffer, start, end).succeeded,
  };
}

function updates(keysPerCall: number, valueSize: number, slots: number): Requests {
  const value = Buffer.alloc(valueSize, "v");
  const turn = new Uint32Array(slots);
  const modRevisions = new Float64Array(slots * keysPerCall);
  // Keys that no earlier load on this server has created.
  const keys = Array.from(modRevisions, (_, i) => Buffer.from(`/registry/pods/${process.pid}/${i}`));
  return {
    path: KVService.Txn.path,
    next(_index, slot) {
      const at = slot * keysPerCall + (turn[slot]! % keysPerCall);
      const key = keys[at]!;
      const compare = Compare.create({ target: CompareTarget.MOD, key, modRevision: modRevisions[at]! });
      const requestPut = PutRequest.create({ key, value });
      const requestRange = RangeRequest.create({ key });
      return framed(
        TxnRequest.encode(
          TxnRequest.create({
            compare: [compare],
            success: [RequestOp.create({ requestPut })],
            failure: [RequestOp.create({ requestRange })],
          }),
        ),
      );
    },
    check(slot, buffer, start, end) {
      const { succeeded, header } = TxnResponse.decode(buffer, start, end);
      modRevisions[slot * keysPerCall + (turn[slot]!++ % keysPerCall)] = header?.revision ?? 0;
      return succeeded;
    },
  };
}
