/** Lease keep-alives in a closed loop: one stream per connection with `concurrency` requests in flight. */
import {
  LeaseGrantRequest,
  LeaseGrantResponse,
  LeaseKeepAliveRequest,
  LeaseKeepAliveResponse,
  LeaseService,
} from "../../src/proto/etcdserverpb.ts";
import { framed, H2Client } from "./h2-client.ts";
import type { Job, JobResult } from "./jobs.ts";
import { Meter } from "./meter.ts";

type KeepAliveJob = Extract<Job, { kind: "keepalive" }>;

const TTL_SECONDS = 300;

export async function runKeepAlives(job: KeepAliveJob): Promise<JobResult> {
  const leases = await grant(job);
  const bodies = leases.map((id) => framed(LeaseKeepAliveRequest.encode(LeaseKeepAliveRequest.create({ id }))));
  const meter = new Meter(job.warmUpSeconds ?? 0);
  return new Promise((resolve) => {
    const clients: H2Client[] = [];
    let next = 0;
    let over = false;
    const finish = () => {
      if (over) return;
      over = true;
      const result = meter.result();
      for (const client of clients) client.close();
      resolve(result);
    };
    for (let c = 0; c < job.connections; c++) {
      // Answers arrive in the order of the stream's requests.
      const sentAtMs: number[] = [];
      const client = new H2Client(job.port, LeaseService.LeaseKeepAlive.path, {
        message(call, buffer, start, end) {
          const now = performance.now();
          if (LeaseKeepAliveResponse.decode(buffer, start, end).ttl !== TTL_SECONDS) meter.failed++;
          meter.add(sentAtMs.shift() ?? now, now);
          if (meter.secondsRun(now) >= (job.seconds ?? Number.POSITIVE_INFINITY)) finish();
          else {
            sentAtMs.push(now);
            client.send(call, bodies[next++ % bodies.length]!, false);
          }
        },
        ended() {
          if (!over) meter.failed++;
          finish();
        },
      });
      clients.push(client);
      const call = client.open(c);
      for (let i = 0; i < job.concurrency; i++) {
        sentAtMs.push(performance.now());
        client.send(call, bodies[next++ % bodies.length]!, false);
      }
    }
  });
}

function grant(job: KeepAliveJob): Promise<bigint[]> {
  const body = framed(LeaseGrantRequest.encode(LeaseGrantRequest.create({ ttl: TTL_SECONDS })));
  return new Promise((resolve, reject) => {
    const ids: bigint[] = [];
    const client: H2Client = new H2Client(job.port, LeaseService.LeaseGrant.path, {
      message: (_call, buffer, start, end) => void ids.push(LeaseGrantResponse.decode(buffer, start, end).id),
      ended(_call, status) {
        if (status !== 0) reject(new Error(`a lease grant ended with status ${status}`));
        if (ids.length < job.leases) return;
        client.close();
        resolve(ids);
      },
    });
    for (let i = 0; i < job.leases; i++) client.send(client.open(i), body, true);
  });
}
