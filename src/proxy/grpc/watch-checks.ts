/**
 * Whether clients may watch a range, and the revision that "from now on" means: a linearizable read for each range and
 * token. Those who ask while one is in flight share the next, so that a thousand clients that begin to watch a range together
 * cost the members two reads. So many are in flight at a time; the others wait.
 */
import { KVService, RangeRequest, type ResponseHeader } from "../../proto/etcdserverpb.ts";
import type { Upstream } from "./upstream.ts";

const TIMEOUT_MS = 10_000;
const IN_FLIGHT_MAX = 256;

type Header = ResponseHeader | undefined;

export interface CheckedSpan {
  readonly key: Uint8Array;
  readonly rangeEnd: Uint8Array;
}

/** Those who asked for one range with one token, and have not been answered. */
interface Line {
  readonly span: CheckedSpan;
  readonly token: string | undefined;
  readonly name: string;
  waiting: Waiting[];
}

interface Waiting {
  resolve(header: Header): void;
  reject(error: unknown): void;
}

export class WatchChecks {
  readonly #upstream: Upstream;
  readonly #lines = new Map<string, Line>();
  /** Lines whose read is to be sent, in their order. */
  readonly #ready = new Set<Line>();
  #inFlight = 0;

  constructor(upstream: Upstream) {
    this.#upstream = upstream;
  }

  /** Rejects with RpcError when the client may not watch the range. */
  ask(span: CheckedSpan, token: string | undefined): Promise<Header> {
    return new Promise((resolve, reject) => {
      const name = `${token ?? ""}\n${latin1(span.key)}\n${span.rangeEnd.length}\n${latin1(span.rangeEnd)}`;
      let line = this.#lines.get(name);
      if (line === undefined) {
        line = { span, token, name, waiting: [] };
        this.#lines.set(name, line);
        this.#ready.add(line);
      }
      line.waiting.push({ resolve, reject });
      this.#next();
    });
  }

  #next(): void {
    for (const line of this.#ready) {
      if (this.#inFlight >= IN_FLIGHT_MAX) return;
      this.#ready.delete(line);
      this.#send(line);
    }
  }

  #send(line: Line): void {
    const { span, token } = line;
    const { waiting } = line;
    line.waiting = [];
    this.#inFlight++;
    const request = RangeRequest.create({ ...span, countOnly: true, limit: 1 });
    const { caller } = this.#upstream;
    caller
      .unary(KVService.Range, request, "read", { timeoutMs: TIMEOUT_MS, token }, (answer) => answer.header)
      .then(
        (header) => this.#answered(line, () => waiting.forEach(({ resolve }) => void resolve(header))),
        (error: unknown) => this.#answered(line, () => waiting.forEach(({ reject }) => void reject(error))),
      );
  }

  #answered(line: Line, tell: () => void): void {
    this.#inFlight--;
    if (line.waiting.length > 0) this.#ready.add(line);
    else this.#lines.delete(line.name);
    tell();
    this.#next();
  }
}

const latin1 = (bytes: Uint8Array): string =>
  Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString("latin1");
