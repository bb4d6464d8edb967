/**
 * What the one thread is at, so that a turn of the loop that took long can be told with what took it.
 *
 * It costs a few stores: an event says `beginWork` with the time it has read anyway, what it then turns out to be says
 * `nameWork`, and who measures its own pieces says `spentOn`. The longest of a turn is remembered until
 * `base/loop-watch.ts` looks, once a turn. Process-wide, like the loop.
 */
const doing = { what: "", sinceMs: 0, longestWhat: "", longestMs: 0 };

/** Of a turn: its longest piece of work. */
export interface Piece {
  /** Empty: nobody said. */
  readonly what: string;
  readonly tookMs: number;
}

/** An event of the loop begins with this work, and what an event before it began is over. */
export function beginWork(what: string, nowMs: number): void {
  closeWork(nowMs);
  doing.what = what;
  doing.sinceMs = nowMs;
}

/** A better name for what has begun. */
export function nameWork(what: string): void {
  doing.what = what;
}

/** A piece of work took so long. */
export function spentOn(what: string, tookMs: number): void {
  if (tookMs <= doing.longestMs) return;
  doing.longestMs = tookMs;
  doing.longestWhat = what;
}

/** For the watch of the loop: the turn is over. Its longest piece. */
export function endOfTurn(nowMs: number): Piece {
  closeWork(nowMs);
  const piece = { what: doing.longestWhat, tookMs: doing.longestMs };
  forgetTurn();
  return piece;
}

/** The same, when the turn was short and nobody asks. */
export function forgetTurn(): void {
  doing.what = "";
  doing.longestWhat = "";
  doing.longestMs = 0;
}

function closeWork(nowMs: number): void {
  if (doing.what !== "") spentOn(doing.what, nowMs - doing.sinceMs);
}
