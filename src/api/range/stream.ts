import type { Allowance, Claim } from "../../base/allowance.ts";
import type { Owner, StepResult, Ticket, Work } from "../../base/turns.ts";
import { varintSize, writeVarint } from "../../base/varint.ts";
import { CompactedError } from "../../mvcc/model/types.ts";
import type { Pin } from "../../mvcc/store/pins.ts";
import type { ReadPoint } from "../../mvcc/store/range-cursor.ts";
import type { RangeRequest } from "../../proto/etcdserverpb.ts";
import type { StreamCall } from "../../rpc/contract.ts";
import { errors } from "../../server/contract/errors.ts";
import { READ_SLICE, type ReadSlice } from "../../server/contract/options.ts";
import type { EtcdServer } from "../../server/server.ts";
import { failWithAny } from "../calls/calls.ts";
import { HeaderWriter } from "../calls/header.ts";
import { encodeTail, KVS_TAG, putRow } from "./answer.ts";
import { type RangeRows, rangeRows, rowsRemembered } from "./rows.ts";

/**
 * The first piece is small, so that it arrives soon; each is twice the previous one, up to a size at which the cost of a
 * message no longer counts. A larger piece would only be memory: it is held here, and copied for the socket.
 */
const PIECE_BYTES_FIRST = 4 * 1024;
const PIECE_BYTES_MAX = 256 * 1024;
/** Space for the tag and length of the response's field. */
const PREFIX_BYTES_MAX = 8;

/**
 * RangeStream: the answer of a range in several messages, all of one revision, sent as the client reads. The last one
 * has header, count and `more`.
 */
export class RangeStreamWork implements Work {
  readonly name = "RangeStream";
  readonly #server: EtcdServer;
  readonly #header: HeaderWriter;
  readonly #call: StreamCall;
  readonly #limits: ReadSlice;
  readonly #rows: RangeRows;
  /** Rows held by a sort, and the shared allowance they are charged to. */
  readonly #sortedRows: number;
  readonly #memory: Allowance;
  #claim: Claim | null = null;
  readonly #revision: number;
  readonly #pin: Pin;
  /** Auth revision of the caller's permissions; 0 when authentication is disabled. */
  readonly #authRevision: number;
  #ticket: Ticket | null = null;
  #target = PIECE_BYTES_FIRST;
  /** Allocated on first use: thousands may wait for their start. */
  #piece: Buffer = Buffer.alloc(PREFIX_BYTES_MAX);
  #pos = PREFIX_BYTES_MAX;
  #over = false;

  constructor(
    server: EtcdServer,
    header: HeaderWriter,
    call: StreamCall,
    request: RangeRequest,
    point: ReadPoint,
    count: number | undefined,
    memory: Allowance,
  ) {
    this.#server = server;
    this.#header = header;
    this.#call = call;
    this.#limits = server.options.readSlice ?? READ_SLICE;
    this.#rows = rangeRows(server.store, request, point, count, this.#limits);
    this.#sortedRows = rowsRemembered(server.store, request, count);
    this.#memory = memory;
    this.#revision = server.store.currentRevision;
    this.#pin = server.store.pin(point);
    this.#authRevision = server.auth.enabled ? server.auth.revision : 0;
  }

  /** Queues it. */
  begin(owner: Owner): void {
    this.#call.onCancel = () => this.#end();
    this.#call.onDrain = () => this.#ticket?.resume();
    this.#pin.onRevoked = () => this.#ticket?.resume();
    if (this.#server.turns.begin(owner, this) === undefined) this.fail(errors.tooManyLongRequests);
  }

  attach(ticket: Ticket): void {
    this.#ticket = ticket;
  }

  step(): StepResult {
    if (this.#pin.revoked) throw new CompactedError(this.#pin.revision);
    this.#pin.touch();
    // Claimed only now: work waiting to start must not hold what running work waits for.
    if (this.#sortedRows > 0) this.#claim ??= this.#memory.claim(this.#sortedRows, () => this.#ticket?.resume());
    if (this.#claim?.granted === false) return "wait";
    if (this.#rows.slice(this.#putRow, Math.min(this.#target, this.#limits.bytes))) {
      this.#sendLast();
      return "done";
    }
    if (this.#pos < this.#target) return "more";
    this.#target = Math.min(this.#target * 2, PIECE_BYTES_MAX);
    return this.#send() ? "more" : "wait";
  }

  fail(error: unknown): void {
    if (!this.#over) failWithAny(this.#call, error);
    this.#end();
  }

  readonly #putRow = (bytes: Uint8Array, start: number, end: number): void => {
    this.#reserve(1 + varintSize(end - start) + end - start);
    this.#pos = putRow(this.#piece, this.#pos, KVS_TAG, bytes, start, end);
  };

  #reserve(size: number): void {
    if (this.#pos + size <= this.#piece.length) return;
    const grown = Buffer.allocUnsafeSlow(Math.max(this.#piece.length * 2, this.#pos + size));
    this.#piece.copy(grown, 0, 0, this.#pos);
    this.#piece = grown;
  }

  /** Header, rows, more, count: the header comes first, so the rows move. */
  #sendLast(): void {
    const { auth } = this.#server;
    if (this.#authRevision !== 0 && this.#authRevision !== auth.revision) throw errors.authOldRevision;
    const tail = encodeTail(this.#rows.more, this.#rows.count);
    const header = Buffer.alloc(HeaderWriter.BYTES_MAX);
    const headerBytes = this.#header.write(header, 0, this.#revision);
    const rows = this.#piece.subarray(PREFIX_BYTES_MAX, this.#pos);
    const message = Buffer.concat([NO_PREFIX, header.subarray(0, headerBytes), rows, tail]);
    this.#piece = message;
    this.#pos = message.length;
    this.#send();
    this.#call.end();
    this.#end();
  }

  /** Sends the piece as the only field of its message. False when the client is paused. */
  #send(): boolean {
    const length = this.#pos - PREFIX_BYTES_MAX;
    const start = PREFIX_BYTES_MAX - 1 - varintSize(length);
    this.#piece[start] = 0x0a;
    writeVarint(this.#piece, start + 1, length);
    const message = this.#piece.subarray(start, this.#pos);
    this.#pos = PREFIX_BYTES_MAX;
    return this.#call.send(message);
  }

  #end(): void {
    if (this.#over) return;
    this.#over = true;
    this.#pin.onRevoked = null;
    this.#pin.release();
    this.#claim?.release();
    this.#ticket?.cancel();
  }
}

const NO_PREFIX = Buffer.alloc(PREFIX_BYTES_MAX);
