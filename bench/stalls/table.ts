/** The table of the stalls suite, and whether each row meets the target. */
import type { Side } from "../report.ts";
import type { Waits } from "./honest.ts";
import type { CaseResult } from "./measure.ts";

/** Upper limit for the honest client's waits, under any load. */
const WAIT_MS_MAX = 50;
/** The table says when the honest client itself was later than this. */
export const LATE_MS = 20;
const MIB = 1024 * 1024;

const HEAD = [
  "| case | took | put p50/p99/longest | get p50/p99/longest | longest turn | memory | met | notes |",
  "| --- | ---: | ---: | ---: | --- | ---: | --- | --- |",
];

/** The worst round of each side; stock's row is below ours. */
export function table(results: readonly CaseResult[], sides: readonly Side[]): string {
  const lines = [...HEAD];
  for (const name of new Set(results.map((result) => result.case))) {
    const [ours, stock] = (["ours", "stock"] as const).map((side) => worst(results, name, side));
    if (ours !== undefined) lines.push(row(ours, name, met(ours, stock, sides)));
    if (stock !== undefined) lines.push(row(stock, ours === undefined ? name : "… stock", ""));
  }
  return lines.join("\n");
}

/** The longest wait of a put or get. */
export const longestWaitMs = ({ honest }: CaseResult): number => Math.max(honest.puts.longestMs, honest.gets.longestMs);

function worst(results: readonly CaseResult[], name: string, side: Side): CaseResult | undefined {
  const own = results.filter((result) => result.case === name && result.side === side);
  return own.reduce<CaseResult | undefined>(
    (most, each) => (most === undefined || longestWaitMs(each) > longestWaitMs(most) ? each : most),
    undefined,
  );
}

function met(ours: CaseResult, stock: CaseResult | undefined, sides: readonly Side[]): string {
  if (ours.error !== undefined || ours.leaderChanged || ours.honest.failed > 0) return "no";
  const wait = longestWaitMs(ours);
  const isShort = wait <= WAIT_MS_MAX;
  if (stock === undefined) return sides.includes("stock") ? "?" : isShort ? "≤ 50 ms" : "no";
  if (isShort && wait <= longestWaitMs(stock)) return "yes";
  return isShort ? "≤ 50 ms, above stock" : wait <= longestWaitMs(stock) ? "not above stock, but > 50 ms" : "no";
}

function row({ honest, turn, tookMs, notes, error, leaderChanged }: CaseResult, name: string, isMet: string): string {
  const memory = Math.round((honest.peakMemoryBytes - honest.memoryBytes) / MIB);
  const all = [
    ...notes,
    ...(honest.failed > 0 ? [`${honest.failed} honest calls failed`] : []),
    ...(honest.unanswered > 10 ? [`${honest.unanswered} honest calls unanswered at the end`] : []),
    ...(honest.lateMs > LATE_MS ? [`client late by ${Math.round(honest.lateMs)} ms`] : []),
    ...(leaderChanged ? ["leader changed"] : []),
    ...(error === undefined ? [] : [`error: ${error.slice(0, 120)}`]),
  ];
  const turnText = turn === undefined ? "" : `${turn.ownMs} ms (${turn.what})`;
  const cells = [name, `${(tookMs / 1000).toFixed(1)} s`, waits(honest.puts), waits(honest.gets), turnText];
  return `| ${[...cells, `+${memory} MiB`, isMet, all.join("; ")].join(" | ")} |`;
}

const waits = ({ p50Ms, p99Ms, longestMs }: Waits): string => [p50Ms, p99Ms, longestMs].map(digits).join(" / ");
const digits = (ms: number): string => (ms >= 10 ? String(Math.round(ms)) : ms.toFixed(1));
