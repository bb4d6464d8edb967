/**
 * Runs h2load (nghttp2), an independent load generator, with one repeated gRPC request body.
 *
 * h2load reads HTTP status codes only, and gRPC errors have status 200. So a run is checked twice: the bytes of data
 * received must match an answer to every request (an error carries none), and, for writes, the store's revision must
 * have grown by the number of requests.
 */
import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { MethodType } from "../src/base/protobuf.ts";
import { KVService } from "../src/proto/etcdserverpb.ts";
import { run } from "../test/harness/programs.ts";
import type { Server } from "../test/harness/server.ts";
import { framed } from "./load/h2-client.ts";
import type { Measurement, Settings } from "./suite.ts";

export interface H2loadCase<I, O> {
  readonly name: string;
  readonly method: MethodType<I, O>;
  readonly request: I;
  readonly connections: number;
  readonly streams: number;
  /** Each request makes one revision. */
  readonly writes: boolean;
}

/**
 * Requests per second from one run, and p50 and p99 from a second, shorter one that logs every request. With several
 * servers, the members of one cluster, connections are spread over them, with one h2load per member at the same time.
 */
export async function h2load<I, O>(
  servers: Server | readonly Server[],
  settings: Settings,
  load: H2loadCase<I, O>,
): Promise<Measurement[]> {
  const targets = [servers].flat();
  const rate = await timed(targets, settings, load, settings.seconds, []);
  const logFiles = targets.map((_, i) => join(settings.scratchDir, `h2load-${i}.log`));
  for (const logFile of logFiles) rmSync(logFile, { force: true });
  await timed(targets, settings, load, Math.min(2, settings.seconds), logFiles);
  const [p50, p99] = quantiles(logFiles);
  return [
    { name: load.name, unit: "req/s", better: "higher", value: rate },
    { name: `${load.name} p50`, unit: "ms", better: "lower", value: p50 },
    { name: `${load.name} p99`, unit: "ms", better: "lower", value: p99 },
  ];
}

async function timed<I, O>(
  servers: readonly Server[],
  settings: Settings,
  load: H2loadCase<I, O>,
  seconds: number,
  logFiles: readonly string[],
): Promise<number> {
  const body = join(settings.scratchDir, "body");
  writeFileSync(body, framed(load.method.request.encode(load.request)));
  const before = await revision(servers[0]!);
  const runs = servers.map((server, i) => {
    const connections = Math.floor((load.connections + i) / servers.length);
    return generate(server, settings, { ...load, connections }, body, seconds, logFiles[i]);
  });
  const results = await Promise.all(runs);
  const succeeded = results.reduce((sum, result) => sum + result.succeeded, 0);
  const grown = (await revision(servers[0]!)) - before;
  if (load.writes && grown < succeeded) {
    throw new Error(`${load.name}: ${succeeded} requests succeeded, but the revision grew by ${grown}`);
  }
  for (const [i, result] of results.entries()) await checkAnswers(servers[i]!, load, result);
  return results.reduce((sum, result) => sum + result.succeeded / result.seconds, 0);
}

interface Answers {
  readonly succeeded: number;
  readonly dataBytes: number;
  /** Actual duration without the warm-up; longer than requested on a busy machine. */
  readonly seconds: number;
}

async function generate<I, O>(
  server: Server,
  settings: Settings,
  load: H2loadCase<I, O>,
  body: string,
  seconds: number,
  logFile: string | undefined,
): Promise<Answers> {
  const result = await run(
    "h2load",
    [
      ...["-D", String(seconds), "--warm-up-time", String(settings.warmUpSeconds)],
      ...["-c", String(load.connections), "-m", String(load.streams), "-t", load.connections >= 100 ? "2" : "1"],
      ...["-d", body, "-H", "content-type: application/grpc", "-H", "te: trailers"],
      ...(logFile === undefined ? [] : ["--log-file", logFile]),
      server.url + load.method.path,
    ],
    { timeoutMs: (seconds + settings.warmUpSeconds + 60) * 1000 },
  );
  const output = result.stdout.toString();
  const number = (pattern: RegExp) => Number(pattern.exec(output)?.[1] ?? Number.NaN);
  const succeeded = number(/(\d+) succeeded/);
  const failed = number(/(\d+) failed/) + number(/(\d+) timeout/);
  if (result.code !== 0 || !(succeeded > 0) || failed !== 0) {
    throw new Error(`h2load on ${load.name} against ${server.program.file} failed: ${output}${result.stderr}`);
  }
  const finishedSeconds = number(/finished in ([\d.]+)s/);
  if (!(finishedSeconds > 0)) throw new Error(`h2load on ${load.name} does not say what it took: ${output}`);
  return {
    succeeded,
    dataBytes: number(/\((\d+)\) data/),
    seconds: Math.max(seconds, finishedSeconds - settings.warmUpSeconds),
  };
}

/** Throws unless every request got the answer that a plain client gets. */
async function checkAnswers<I, O>(server: Server, load: H2loadCase<I, O>, answers: Answers): Promise<void> {
  const answer = await server.client.unary(load.method, load.request as Partial<I>);
  const size = 5 + load.method.response.encode(answer).length;
  // The revision in the header is a varint, up to four bytes shorter at the beginning of the run.
  if (!(answers.dataBytes >= answers.succeeded * (size - 4))) {
    throw new Error(
      `${load.name}: ${answers.succeeded} answers of ${size} bytes cannot fit into the ${answers.dataBytes} that came`,
    );
  }
}

async function revision(server: Server): Promise<number> {
  const { header } = await server.client.unary(KVService.Range, { key: Buffer.from("/") });
  return header!.revision;
}

function quantiles(logFiles: readonly string[]): [number, number] {
  const micros: number[] = [];
  for (const logFile of logFiles) {
    for (const line of readFileSync(logFile, "utf8").split("\n")) {
      const [, status, time] = line.split("\t");
      if (status === "200") micros.push(Number(time));
    }
  }
  micros.sort((a, b) => a - b);
  const at = (p: number) => (micros[Math.floor((micros.length - 1) * p)] ?? Number.NaN) / 1000;
  return [at(0.5), at(0.99)];
}
