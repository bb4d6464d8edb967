/**
 * Bodies of HTTP requests: delivered in pieces as they arrive, with back-pressure from the reader, and aborted when a
 * client is too slow.
 */
import type * as http from "node:http";
import type { Clock, Timer } from "../../base/clock.ts";
import type { PlainRequest } from "../../rpc/contract.ts";

/** The reader of a body. It is not called any more once the client is gone. */
export interface BodyReader {
  /** Its bytes stay unchanged. */
  piece(bytes: Buffer): void;
  end(): void;
  /** The client may be silent for any time, as when it sends a message occasionally. */
  readonly mayRest: boolean;
}

/** The body of a request. The client is paused until it is read. */
export interface HttpBody {
  /** It has arrived completely. */
  readonly isComplete: boolean;
  /** Called at most once. */
  read(reader: BodyReader): void;
  pause(): void;
  resume(): void;
}

/** Minimum progress of a body in each period. */
const PERIOD_MS = 30_000;
const PERIOD_BYTES = 8 * 1024;

interface Watched {
  bytes: number;
  isHeld: boolean;
  readonly tooSlow: () => void;
}

/** Checks the bodies in progress, and aborts those that make almost no progress. */
export class SlowBodies {
  readonly #clock: Clock;
  /** With each body's bytes at the last check; -1 for a new one. */
  readonly #bodies = new Map<Watched, number>();
  #timer: Timer | undefined;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  add(body: Watched): void {
    this.#bodies.set(body, -1);
    this.#timer ??= this.#clock.every(PERIOD_MS, () => this.#look());
  }

  remove(body: Watched): void {
    this.#bodies.delete(body);
    if (this.#bodies.size > 0) return;
    this.#timer?.cancel();
    this.#timer = undefined;
  }

  #look(): void {
    for (const [body, before] of [...this.#bodies]) {
      this.#bodies.set(body, body.bytes);
      if (before < 0 || body.isHeld || body.bytes - before >= PERIOD_BYTES) continue;
      this.remove(body);
      body.tooSlow();
    }
  }
}

/** The source of the pieces. */
interface BodySource {
  readonly isComplete: () => boolean;
  start(onPiece: (bytes: Buffer) => void, onEnd: () => void): void;
  pause(): void;
  resume(): void;
}

export class RequestBody implements HttpBody, Watched {
  bytes = 0;
  isHeld = false;
  readonly tooSlow: () => void;
  readonly #source: BodySource;
  readonly #slow: SlowBodies;
  #reader: BodyReader | null = null;
  #isStarted = false;
  #isEnded = false;

  constructor(source: BodySource, slow: SlowBodies, tooSlow: () => void) {
    this.#source = source;
    this.#slow = slow;
    this.tooSlow = tooSlow;
  }

  static ofHttp1(incoming: http.IncomingMessage, slow: SlowBodies, tooSlow: () => void): RequestBody {
    const source: BodySource = {
      isComplete: () => incoming.complete,
      start(onPiece, onEnd) {
        incoming.on("data", onPiece);
        incoming.on("end", onEnd);
      },
      pause: () => void incoming.pause(),
      resume: () => void incoming.resume(),
    };
    return new RequestBody(source, slow, tooSlow);
  }

  static ofHttp2(plain: PlainRequest, slow: SlowBodies, tooSlow: () => void): RequestBody {
    const source: BodySource = {
      isComplete: () => plain.bodyComplete,
      start: (onPiece, onEnd) => plain.readBody(onPiece, onEnd),
      pause: () => plain.pauseBody(),
      resume: () => plain.resumeBody(),
    };
    return new RequestBody(source, slow, tooSlow);
  }

  get isComplete(): boolean {
    return this.#isEnded || this.#source.isComplete();
  }

  read(reader: BodyReader): void {
    this.#reader = reader;
    if (!reader.mayRest) this.#slow.add(this);
    this.#start();
  }

  pause(): void {
    this.isHeld = true;
    this.#source.pause();
  }

  resume(): void {
    this.isHeld = false;
    this.#source.resume();
  }

  /** Reads and drops the rest, up to this many bytes. Resolves to whether that was all; never if the client leaves. */
  drain(bytesMax: number): Promise<boolean> {
    return new Promise((resolve) => {
      if (this.#isEnded) return resolve(true);
      let bytes = 0;
      this.#reader = {
        piece: (piece) => {
          bytes += piece.length;
          if (bytes <= bytesMax) return;
          this.stop();
          resolve(false);
        },
        end: () => resolve(true),
        mayRest: false,
      };
      this.#slow.add(this);
      if (this.isHeld) this.resume();
      this.#start();
    });
  }

  /** The body is no longer needed. */
  stop(): void {
    this.#slow.remove(this);
    this.#reader = null;
  }

  #start(): void {
    if (this.#isStarted) return;
    this.#isStarted = true;
    this.#source.start(
      (bytes) => {
        this.bytes += bytes.length;
        this.#reader?.piece(bytes);
      },
      () => {
        this.#isEnded = true;
        this.#slow.remove(this);
        this.#reader?.end();
      },
    );
  }
}
