/**
 * Watch fan-out: many watchers on one prefix, puts under it, and every event counted at every watcher.
 *
 * The next put starts when the previous one is answered, without waiting for its events. Delivery is measured from the
 * put to its event at a watcher. The rate covers the time until the last event arrived, and every watcher must receive
 * every put.
 */
import {
  KVService,
  PutRequest,
  WatchCreateRequest,
  WatchRequest,
  WatchResponse,
  WatchService,
} from "../../src/proto/etcdserverpb.ts";
import { type Call, framed, H2Client } from "./h2-client.ts";
import type { Job, JobResult } from "./jobs.ts";
import { Meter } from "./meter.ts";

type WatchJob = Extract<Job, { kind: "watch" }>;

/** Watches sharing one gRPC stream, like those of one client. */
const WATCHES_PER_STREAM = 10;
const PREFIX = "/bench/watch/";
const DRAIN_SECONDS_MAX = 60;

export async function runWatch(job: WatchJob): Promise<JobResult> {
  const watchers: H2Client[] = [];
  let created = 0;
  let delivered = 0;
  let meter = new Meter(0);
  let failed = 0;
  let progress = () => {};
  const sentAtMs: number[] = [];

  const openWatches = new Promise<void>((resolve) => (progress = () => created >= job.watchers && resolve()));
  const streams = Math.ceil(job.watchers / WATCHES_PER_STREAM);
  const create = framed(
    WatchRequest.encode(
      WatchRequest.create({
        createRequest: WatchCreateRequest.create({ key: Buffer.from(PREFIX), rangeEnd: Buffer.from("/bench/watch0") }),
      }),
    ),
  );
  for (let c = 0; c < job.connections; c++) {
    watchers.push(
      new H2Client(job.port, WatchService.Watch.path, {
        message(_call, buffer, start, end) {
          const events = eventsIn(buffer, start, end);
          if (events === 0) {
            const response = WatchResponse.decode(buffer, start, end);
            if (response.created) created++;
            if (response.canceled) failed++;
          } else {
            delivered += events;
            // The put of the answer's last event; the others waited longer, in the same answer.
            const response =
              events === 1 || delivered % 16 === 0 ? WatchResponse.decode(buffer, start, end) : undefined;
            const now = performance.now();
            const index = response?.events.at(-1)?.kv?.value.subarray(0, 10);
            if (index) meter.add(sentAtMs[Number(Buffer.from(index).toString())] ?? now, now, 0);
          }
          progress();
        },
        ended() {
          failed++;
        },
      }),
    );
  }
  for (let s = 0, left = job.watchers; s < streams; s++) {
    const client = watchers[s % watchers.length]!;
    const call = client.open(s);
    for (let w = 0; w < WATCHES_PER_STREAM && left > 0; w++, left--) client.send(call, create, false);
  }
  await openWatches;

  meter = new Meter(0);
  const begin = performance.now();
  const puts = await putUntil(job, sentAtMs);
  const expected = puts * job.watchers;
  await new Promise<void>((resolve) => {
    const timer = setTimeout(resolve, DRAIN_SECONDS_MAX * 1000);
    progress = () => {
      if (delivered < expected && failed === 0) return;
      clearTimeout(timer);
      resolve();
    };
    progress();
  });
  const seconds = (performance.now() - begin) / 1000;
  const latencies = meter.result();
  for (const client of watchers) client.close();
  const missing = Math.abs(expected - delivered);
  return { ...latencies, done: delivered, seconds, perSecond: delivered / seconds, failed: failed + missing };
}

/** Puts in a closed loop and returns their number. Each value starts with the put's number in ten digits. */
function putUntil(job: WatchJob, sentAtMs: number[]): Promise<number> {
  const filler = Buffer.alloc(Math.max(0, job.valueSize - 10), "v");
  const begin = performance.now();
  return new Promise((resolve, reject) => {
    let running = job.concurrency;
    const start = (call: Call) => {
      const index = sentAtMs.length;
      sentAtMs.push(performance.now());
      const key = Buffer.from(`${PREFIX}${index % 1000}`);
      const value = Buffer.concat([Buffer.from(String(index).padStart(10, "0")), filler]);
      client.send(call, framed(PutRequest.encode(PutRequest.create({ key, value }))), true);
    };
    const client: H2Client = new H2Client(job.port, KVService.Put.path, {
      message() {},
      ended(call, status) {
        if (status !== 0) reject(new Error(`a put ended with status ${status}`));
        const over = (performance.now() - begin) / 1000 >= (job.seconds ?? Number.POSITIVE_INFINITY);
        if (over || sentAtMs.length >= (job.count ?? Number.POSITIVE_INFINITY)) {
          if (--running === 0) {
            client.close();
            resolve(sentAtMs.length);
          }
        } else {
          client.reopen(call);
          start(call);
        }
      },
    });
    for (let i = 0; i < job.concurrency; i++) start(client.open(i));
  });
}

/** Counts field 11 (events) of a WatchResponse without decoding the events. */
function eventsIn(buffer: Buffer, start: number, end: number): number {
  let events = 0;
  for (let at = start; at < end; ) {
    const tag = buffer[at++]!;
    let value = 0;
    for (let shift = 0; ; shift += 7) {
      const byte = buffer[at++]!;
      value |= (byte & 127) << shift;
      if (byte < 128) break;
    }
    if (tag === 90) events++;
    if ((tag & 7) === 2) at += value;
  }
  return events;
}
