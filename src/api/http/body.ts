/**
 * Bodies of HTTP requests: handed on in pieces as they come, held back when their reader is, and ended when a client takes
 * forever to send one.
 */
import type * as http from "node:http";
import type { Clock, Timer } from "../../base/clock.ts";
import type { PlainRequest } from "../../rpc/contract.ts";

/** What a body is handed to. Nothing is called any more once the client has gone. */
export interface BodyReader {
  /** Its bytes stay as they are. */
  piece(bytes: Buffer): void;
  end(): void;
  /** The client may stay silent as long as it likes, as one that sends a message now and then. */
  readonly mayRest: boolean;
}

/** The body of a request. Until somebody reads it the client is held back. */
export interface HttpBody {
  /** All of it has come. */
  readonly isComplete: boolean;
  /** Called at most once. */
  read(reader: BodyReader): void;
  pause(): void;
  resume(): void;
}

/** What a body must bring in each period. */
const PERIOD_MS = 30_000;
const PERIOD_BYTES = 8 * 1024;

interface Watched {
  bytes: number;
  isHeld: boolean;
  readonly tooSlow: () => void;
}

/** Looks at the bodies under way, and ends those that hardly move. */
export class SlowBodies {
  readonly #clock: Clock;
  /** With the bytes that each had at the last look; -1 for one that is new. */
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

/** Where the pieces come from. */
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

  /** Reads and drops what is left, up to so many bytes. Resolves to whether that was all; never when the client goes. */
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

  /** Nobody reads it any more. */
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
