/**
 * What the event loop is working on, so that a report of a long turn can name the work that caused it.
 *
 * It costs a few stores: an event calls `beginWork` with the time it has read anyway, calls `nameWork` once it knows
 * what it is, and code that measures its own pieces calls `spentOn`. The longest piece of a turn is kept until
 * `base/loop-watch.ts` reads it, once a turn. Process-wide, like the loop.
 */
const doing = { what: "", sinceMs: 0, longestWhat: "", longestMs: 0 };

/** The longest piece of work of a turn. */
export interface Piece {
  /** Empty when no name was given. */
  readonly what: string;
  readonly tookMs: number;
}

/** An event begins with this work. The work of the event before it is over. */
export function beginWork(what: string, nowMs: number): void {
  closeWork(nowMs);
  doing.what = what;
  doing.sinceMs = nowMs;
}

/** A more precise name for the current work. */
export function nameWork(what: string): void {
  doing.what = what;
}

/** A piece of work took this long. */
export function spentOn(what: string, tookMs: number): void {
  if (tookMs <= doing.longestMs) return;
  doing.longestMs = tookMs;
  doing.longestWhat = what;
}

/** For the loop watch: ends the turn and returns its longest piece. */
export function endOfTurn(nowMs: number): Piece {
  closeWork(nowMs);
  const piece = { what: doing.longestWhat, tookMs: doing.longestMs };
  forgetTurn();
  return piece;
}

/** The same, for a short turn that needs no report. */
export function forgetTurn(): void {
  doing.what = "";
  doing.longestWhat = "";
  doing.longestMs = 0;
}

function closeWork(nowMs: number): void {
  if (doing.what !== "") spentOn(doing.what, nowMs - doing.sinceMs);
}
