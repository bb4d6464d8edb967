/**
 * The honest client of the stalls suite, in its own process so that heavy clients do not distort it: 2 puts and 2 gets
 * every 2 ms, whether or not the previous ones were answered, over one connection per kind. It also measures the memory
 * of the member.
 *
 * Reads commands on standard input: "begin" starts counting, "end" prints an `HonestResult` and exits. Exits by itself
 * after ten minutes, and with its parent.
 */
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { connect as connectTls } from "node:tls";
import { KVService, PutRequest, RangeRequest } from "../../src/proto/etcdserverpb.ts";
import { type Call, framed, H2Client } from "../load/h2-client.ts";
import { Histogram } from "../load/histogram.ts";

export interface HonestJob {
  readonly port: number;
  /** Of the member, to read its memory. */
  readonly pid: number;
  readonly token?: string | undefined;
  /** Uses TLS and accepts any certificate. */
  readonly tls: boolean;
}

export interface Waits {
  readonly count: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly longestMs: number;
}

export interface HonestResult {
  readonly puts: Waits;
  readonly gets: Waits;
  readonly failed: number;
  /** Calls without an answer; their waits count up to the end of the run. */
  readonly unanswered: number;
  /** The longest delay of this process itself: waits up to this length say nothing about the member. */
  readonly lateMs: number;
  /** Memory of the member itself at the start, and the maximum after it, in bytes. */
  readonly memoryBytes: number;
  readonly peakMemoryBytes: number;
}

const EVERY_MS = 2;
const AT_ONCE = 2;
/** Maximum number of batches sent at once to catch up when this process was late. */
const BEHIND_MAX = 50;
const KEYS = 100;
const VALUE_BYTES = 100;
const MEMORY_EVERY_MS = 20;
const LIFE_MS_MAX = 600_000;

class Kind {
  readonly #client: H2Client;
  readonly #body: (index: number) => Buffer;
  readonly #open = new Set<Call>();
  #histogram = new Histogram();
  #count = 0;
  #longestMs = 0;
  #sent = 0;
  failed = 0;

  constructor(job: HonestJob, path: string, body: (index: number) => Buffer) {
    this.#body = body;
    const socket = job.tls
      ? connectTls({
          port: job.port,
          host: "127.0.0.1",
          servername: "localhost",
          rejectUnauthorized: false,
          ALPNProtocols: ["h2"],
        })
      : undefined;
    this.#client = new H2Client(
      job.port,
      path,
      {
        message() {},
        ended: (call, status) => {
          this.#open.delete(call);
          if (status === 0) this.#add(performance.now() - call.startedMs);
          else this.failed++;
        },
      },
      { ...(job.token === undefined ? {} : { headers: { token: job.token } }), ...(socket ? { socket } : {}) },
    );
  }

  get unanswered(): number {
    return this.#open.size;
  }

  send(nowMs: number): void {
    const call = this.#client.open(0);
    call.startedMs = nowMs;
    this.#open.add(call);
    this.#client.send(call, this.#body(this.#sent++), true);
  }

  begin(): void {
    this.#histogram = new Histogram();
    this.#count = this.#longestMs = this.failed = 0;
  }

  result(): Waits {
    const nowMs = performance.now();
    for (const call of this.#open) this.#longestMs = Math.max(this.#longestMs, nowMs - call.startedMs);
    const count = this.#count;
    return {
      count,
      p50Ms: count === 0 ? 0 : this.#histogram.quantile(0.5),
      p99Ms: count === 0 ? 0 : this.#histogram.quantile(0.99),
      longestMs: this.#longestMs,
    };
  }

  #add(tookMs: number): void {
    this.#count++;
    this.#histogram.add(tookMs);
    this.#longestMs = Math.max(this.#longestMs, tookMs);
  }
}

function main(job: HonestJob): void {
  const keys = Array.from({ length: KEYS }, (_, i) => Buffer.from(`/honest/${i}`));
  const value = Buffer.alloc(VALUE_BYTES, "v");
  const putBodies = keys.map((key) => framed(PutRequest.encode(PutRequest.create({ key, value }))));
  const getBodies = keys.map((key) => framed(RangeRequest.encode(RangeRequest.create({ key }))));
  const puts = new Kind(job, KVService.Put.path, (index) => putBodies[index % KEYS]!);
  const gets = new Kind(job, KVService.Range.path, (index) => getBodies[index % KEYS]!);
  let dueMs = performance.now();
  let lateMs = 0;
  const timer = setInterval(() => {
    const nowMs = performance.now();
    lateMs = Math.max(lateMs, nowMs - dueMs - EVERY_MS);
    if (nowMs - dueMs > BEHIND_MAX * EVERY_MS) dueMs = nowMs - BEHIND_MAX * EVERY_MS;
    for (; dueMs < nowMs; dueMs += EVERY_MS) {
      for (let i = 0; i < AT_ONCE; i++) {
        puts.send(nowMs);
        gets.send(nowMs);
      }
    }
  }, 1);
  let memoryBytes = 0;
  let peakMemoryBytes = 0;
  setInterval(() => {
    peakMemoryBytes = Math.max(peakMemoryBytes, memoryOf(job.pid));
  }, MEMORY_EVERY_MS);
  setTimeout(() => process.exit(1), LIFE_MS_MAX);
  const input = createInterface({ input: process.stdin });
  input.on("close", () => process.exit(1));
  input.on("line", (line) => {
    if (line === "begin") {
      puts.begin();
      gets.begin();
      lateMs = 0;
      memoryBytes = peakMemoryBytes = memoryOf(job.pid);
      return;
    }
    clearInterval(timer);
    const result: HonestResult = {
      puts: puts.result(),
      gets: gets.result(),
      failed: puts.failed + gets.failed,
      unanswered: puts.unanswered + gets.unanswered,
      lateMs,
      memoryBytes,
      peakMemoryBytes,
    };
    process.stdout.write(`${JSON.stringify(result)}\n`, () => process.exit(0));
  });
  process.stdout.write("running\n");
}

/** Memory that the process allocated itself, without mapped files, whose pages the kernel may drop. */
function memoryOf(pid: number): number {
  try {
    const status = readFileSync(`/proc/${pid}/status`, "utf8");
    return Number(/RssAnon:\s+(\d+) kB/.exec(status)?.[1] ?? 0) * 1024;
  } catch {
    return 0;
  }
}

const job = process.argv[2];
if (job?.startsWith("{")) main(JSON.parse(job) as HonestJob);
