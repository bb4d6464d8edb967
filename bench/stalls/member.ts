/** The stalls suite's view of the measured member: its long turns, its honest client, its term. */
import { spawn } from "node:child_process";
import { join } from "node:path";
import { createInterface } from "node:readline";
import type { TlsOptions } from "../../src/client/raw.ts";
import { MaintenanceService } from "../../src/proto/etcdserverpb.ts";
import { repositoryRoot } from "../../test/harness/repository.ts";
import { httpText, type Server } from "../../test/harness/server.ts";
import type { HonestJob, HonestResult } from "./honest.ts";

/** A turn of the member's event loop, from its `/debug/turns`. */
export interface Turn {
  readonly tookMs: number;
  /** Without the time its thread waited for a processor. */
  readonly ownMs: number;
  readonly what: string;
}

export const portOf = (server: Server): number => Number(server.endpoint.split(":")[1]);

/** The longest turn that ended at `sinceMs` (Unix time) or later; undefined when none took 20 ms, or for stock etcd. */
export async function longestTurn(
  server: Server,
  tls: TlsOptions | undefined,
  sinceMs: number,
): Promise<Turn | undefined> {
  const turns = await turnsOf(server, tls, sinceMs);
  return turns.reduce<Turn | undefined>((most, turn) => (turn.ownMs > (most?.ownMs ?? 0) ? turn : most), undefined);
}

async function turnsOf(server: Server, tls: TlsOptions | undefined, sinceMs: number): Promise<Turn[]> {
  const { status, body } = await httpText(`${server.url}/debug/turns`, tls);
  if (status !== 200) return [];
  return (JSON.parse(body) as Record<string, unknown>[])
    .filter((turn) => Date.parse(String(turn["ended"])) >= sinceMs)
    .map((turn) => {
      const tookMs = Number(turn["took-ms"]);
      const collecting = Number(turn["garbage-collection-ms"]);
      const work = `${turn["work"] || "unknown"} ${turn["work-took-ms"]} ms`;
      return {
        tookMs,
        ownMs: tookMs - Number(turn["waited-for-processor-at-most-ms"]),
        what: collecting > 0 ? `${work}, garbage ${collecting} ms` : work,
      };
    });
}

export async function termOf(server: Server, token: string | undefined): Promise<number> {
  const metadata = token === undefined ? {} : { token };
  return (await server.client.unary(MaintenanceService.Status, {}, { metadata, timeoutMs: 20_000 })).raftTerm;
}

/** A running honest client. */
export interface Honest {
  begin(): void;
  end(): Promise<HonestResult>;
  kill(): void;
}

export function startHonest(job: HonestJob): Promise<Honest> {
  const main = join(repositoryRoot, "bench", "stalls", "honest.ts");
  const child = spawn(process.execPath, ["--import", "tsx", main, JSON.stringify(job)], {
    cwd: repositoryRoot,
    stdio: ["pipe", "pipe", "inherit"],
  });
  const onExit = (): void => void child.kill("SIGKILL");
  process.once("exit", onExit);
  child.once("exit", () => process.off("exit", onExit));
  let take: (line: string) => void = () => {};
  let refuse: (error: Error) => void = () => {};
  const next = (): Promise<string> =>
    new Promise((resolve, reject) => {
      take = resolve;
      refuse = reject;
    });
  createInterface({ input: child.stdout }).on("line", (line) => take(line));
  child.once("exit", (code) => refuse(new Error(`the honest client ended with ${code}`)));
  const honest: Honest = {
    begin: () => void child.stdin.write("begin\n"),
    async end() {
      const line = next();
      child.stdin.write("end\n");
      return JSON.parse(await line) as HonestResult;
    },
    kill: () => void child.kill("SIGKILL"),
  };
  return next().then(() => honest);
}
