/**
 * Who did what: a line of JSON for each call that has ended and each watch that was created. Calls are gathered for the rest
 * of the turn and then written as lines; lines are sealed and written to the file together, some time later, so that no
 * call waits for it. What does not fit into the memory for it is counted, and the log says so.
 */
import { TLSSocket } from "node:tls";
import type { AuthInfo } from "../../auth/auth-info.ts";
import type { Clock, Timer } from "../../base/clock.ts";
import { CODE_NAMES } from "../../base/grpc-codes.ts";
import type { Logger } from "../../base/log.ts";
import { type CallInfo, messageOf, type RpcSocket } from "../../rpc/contract.ts";
import { namesOf } from "../../rpc/tls/certificate-names.ts";
import { AuditFile } from "./file.ts";
import { type Subject, subjectOf, subjectOfRange } from "./subject.ts";

export interface AuditOptions {
  readonly path: string;
  readonly rotateSizeMb: number;
  readonly rotateKeep: number;
  /** Names of methods, such as `Put`; empty for all. Those with a minus before them are left out. */
  readonly methods: readonly string[];
  /** Empty for all. */
  readonly users: readonly string[];
  /** Records of calls with keys, none of which has one of these prefixes, are left out. Empty for all. */
  readonly prefixes: readonly string[];
}

export interface AuditSources {
  readonly clock: Clock;
  readonly logger: Logger;
  readonly revision: () => number;
  readonly userOf: (call: CallInfo) => AuthInfo;
}

/** Lines are written when there are so many bytes, or after so many milliseconds. */
const BLOCK_BYTES = 256 * 1024;
const BLOCK_MS = 100;
const MEGABYTE = 1024 * 1024;

interface Ended {
  readonly call: CallInfo;
  /** As JSON. */
  readonly outcome: string;
  readonly revision: number;
  readonly subject: Subject | undefined;
}

export class AuditLog {
  readonly #options: AuditOptions;
  readonly #sources: AuditSources;
  readonly #file: AuditFile;
  readonly #prefixes: readonly Buffer[];
  /** By path: the method as it stands in a record; undefined when its calls are not wanted. */
  readonly #methods = new Map<string, string | undefined>();
  readonly #peers = new WeakMap<RpcSocket, string>();
  /** Of streams: what they are about. Most members serve none, and then need not look here for every call. */
  readonly #subjects = new WeakMap<CallInfo, Subject>();
  #hasSubjects = false;
  /** The socket of the last record, and the user: most records have the same as the one before. */
  #lastSocket: RpcSocket | undefined;
  #lastPeer = "";
  #lastUser = "";
  #lastUserText = '""';
  #ended: Ended[] = [];
  #block = "";
  #records = 0;
  #timer: Timer | undefined;
  #lost = 0;
  #isClosed = false;

  /** Throws what the file system says. */
  constructor(options: AuditOptions, sources: AuditSources) {
    this.#options = options;
    this.#sources = sources;
    this.#prefixes = options.prefixes.map((prefix) => Buffer.from(prefix));
    const { clock, logger } = sources;
    const bytesMax = Math.max(1, options.rotateSizeMb) * MEGABYTE;
    this.#file = new AuditFile({ path: options.path, bytesMax, keep: options.rotateKeep, clock, logger });
  }

  /** A call is over. */
  ended(call: CallInfo, code: number): void {
    if (this.#methodOf(call.path) === undefined) return;
    const subject = this.#hasSubjects ? this.#subjects.get(call) : undefined;
    this.#add({ call, outcome: OUTCOMES[code] ?? String(code), revision: this.#sources.revision(), subject });
  }

  /** What a stream, whose request is not kept, is about. */
  about(call: CallInfo, range: { readonly key: Uint8Array; readonly rangeEnd: Uint8Array }): void {
    if (this.#methodOf(call.path) === undefined) return;
    this.#subjects.set(call, subjectOfRange(range));
    this.#hasSubjects = true;
  }

  /** A watch was created, or refused. */
  watched(call: CallInfo, range: { readonly key: Uint8Array; readonly rangeEnd: Uint8Array }, refusal: string): void {
    if (this.#methodOf(call.path) === undefined) return;
    const outcome = JSON.stringify(refusal === "" ? "CREATED" : refusal);
    this.#add({ call, outcome, revision: this.#sources.revision(), subject: subjectOfRange(range) });
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    this.#format();
    this.#flush();
    await this.#file.close();
  }

  #methodOf(path: string): string | undefined {
    const known = this.#methods.get(path);
    if (known !== undefined || this.#methods.has(path)) return known;
    const name = path.slice(path.lastIndexOf("/") + 1);
    const { methods } = this.#options;
    const named = methods.filter((method) => !method.startsWith("-"));
    const isWanted = !methods.includes(`-${name}`) && (named.length === 0 || named.includes(name));
    const method = isWanted ? `","method":"${name}","user":` : undefined;
    this.#methods.set(path, method);
    return method;
  }

  #add(ended: Ended): void {
    if (this.#isClosed) return;
    if (this.#ended.push(ended) === 1) this.#sources.clock.defer(this.#format);
  }

  readonly #format = (): void => {
    const all = this.#ended;
    if (all.length === 0) return;
    this.#ended = [];
    const start = `{"time":"${new Date(this.#sources.clock.wallMs()).toISOString()}`;
    const { users } = this.#options;
    for (const { call, outcome, revision, subject } of all) {
      const user = this.#sources.userOf(call).username;
      if (users.length > 0 && !users.includes(user)) continue;
      const about = subject ?? subjectOf(call.path, messageOf(call) ?? NO_BYTES);
      if (!this.#isWanted(about)) continue;
      if (user !== this.#lastUser) {
        this.#lastUser = user;
        this.#lastUserText = JSON.stringify(user);
      }
      const who = this.#lastUserText + this.#peerOf(call);
      this.#block += `${start}${this.#methodOf(call.path)}${who}${about.fields},"revision":${revision},"outcome":${outcome}}\n`;
      this.#records++;
    }
    if (this.#block.length >= BLOCK_BYTES) this.#flush();
    else if (this.#records > 0) this.#timer ??= this.#sources.clock.after(BLOCK_MS, this.#flush);
  };

  #isWanted({ keys }: Subject): boolean {
    if (this.#prefixes.length === 0 || keys.length === 0) return true;
    return keys.some((key) =>
      this.#prefixes.some((prefix) => prefix.equals(key.subarray(0, Math.min(prefix.length, key.length)))),
    );
  }

  /** Address and certificate, which are those of the connection. */
  #peerOf(call: CallInfo): string {
    const { socket } = call;
    if (socket === this.#lastSocket && !call.isLocal) return this.#lastPeer;
    let peer = this.#peers.get(socket);
    if (peer === undefined) {
      const isVerified = socket instanceof TLSSocket && socket.authorized;
      const certificate = isVerified ? socket.getPeerX509Certificate() : undefined;
      const name = certificate === undefined ? null : namesOf(certificate).commonName;
      peer = `,"address":${JSON.stringify(call.remoteAddress)}${name === null ? "" : `,"certificate":${JSON.stringify(name)}`}`;
      this.#peers.set(socket, peer);
    }
    this.#lastSocket = socket;
    this.#lastPeer = peer;
    return call.isLocal ? `${peer},"gateway":true` : peer;
  }

  readonly #flush = (): void => {
    this.#timer?.cancel();
    this.#timer = undefined;
    if (this.#records === 0) return;
    if (this.#lost > 0) this.#block = `${JSON.stringify({ lost: this.#lost })}\n${this.#block}`;
    if (this.#file.append(Buffer.from(this.#block), this.#records)) this.#lost = 0;
    else {
      if (this.#lost === 0) this.#sources.logger.error("the audit log cannot be written fast enough; records are lost");
      this.#lost += this.#records;
    }
    this.#block = "";
    this.#records = 0;
  };
}

const NO_BYTES = new Uint8Array();
const OUTCOMES = CODE_NAMES.map((name) => JSON.stringify(name));
