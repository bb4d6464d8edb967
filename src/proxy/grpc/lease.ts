/**
 * The service Lease of a proxy. Renewals of all clients with one token go over one stream to the cluster, and renewals
 * of one lease that wait for their answer share it. Source: etcd v3.7, server/proxy/grpcproxy/lease.go.
 */
import type { Timer } from "../../base/clock.ts";
import { Code } from "../../base/grpc-codes.ts";
import { RpcError } from "../../client/rpc-error.ts";
import type { StreamCall as UpstreamCall } from "../../client/stream-call.ts";
import {
  LeaseKeepAliveRequest,
  LeaseKeepAliveResponse,
  LeaseService,
  LeaseTimeToLiveRequest,
  LeaseTimeToLiveResponse,
} from "../../proto/etcdserverpb.ts";
import type { RpcRegistry, StreamCall, UnaryCall } from "../../rpc/contract.ts";
import { decode } from "./kv.ts";
import type { Namespace } from "./namespace.ts";
import { failWith, requiresLeader, tokenOf, tooMany, type Upstream } from "./upstream.ts";

const RECONNECT_MS = 100;
/** Renewals of one client that wait for their answers; then its stream is not read on. */
const WAITING_MAX = 1024;
/** Tokens with which clients renew leases at a time: each costs a stream to a member. */
const TOKENS_MAX = 100_000;

export class LeaseProxy {
  readonly #upstream: Upstream;
  readonly #namespace: Namespace;
  readonly #renewals = new Map<string, Renewals>();

  constructor(upstream: Upstream, namespace: Namespace) {
    this.#upstream = upstream;
    this.#namespace = namespace;
  }

  register(rpc: RpcRegistry): void {
    const upstream = this.#upstream;
    rpc.unary(LeaseService.LeaseGrant.path, (call) =>
      upstream.forward(call, LeaseService.LeaseGrant, { safety: "write" }),
    );
    rpc.unary(LeaseService.LeaseRevoke.path, (call) =>
      upstream.forward(call, LeaseService.LeaseRevoke, { safety: "write" }),
    );
    rpc.unary(LeaseService.LeaseTimeToLive.path, (call) => upstream.answer(call, () => this.#timeToLive(call)));
    rpc.unary(LeaseService.LeaseLeases.path, (call) =>
      upstream.forward(call, LeaseService.LeaseLeases, { safety: "read" }),
    );
    rpc.stream(LeaseService.LeaseKeepAlive.path, (call) => {
      const renewals = this.#renewalsOf(call);
      if (renewals === undefined) failWith(call, tooMany());
      else new KeepAliveStream(call, renewals);
    });
  }

  async #timeToLive(call: UnaryCall): Promise<Uint8Array> {
    const answer = await this.#upstream.send(call, LeaseService.LeaseTimeToLive, call.message, { safety: "read" });
    if (this.#namespace.isEmpty || !decode(LeaseTimeToLiveRequest, call.message).keys) return answer;
    const response = LeaseTimeToLiveResponse.decode(answer);
    const own = response.keys.filter((key) => this.#namespace.has(key));
    const keys = own.map((key) => this.#namespace.keyOutside(key));
    return LeaseTimeToLiveResponse.encode({ ...response, keys });
  }

  #renewalsOf(call: StreamCall): Renewals | undefined {
    const token = tokenOf(call);
    const name = token ?? "";
    let renewals = this.#renewals.get(name);
    if (renewals === undefined) {
      if (this.#renewals.size >= TOKENS_MAX) return undefined;
      renewals = new Renewals(this.#upstream, token, () => this.#renewals.delete(name));
      this.#renewals.set(name, renewals);
    }
    return renewals;
  }
}

/** One LeaseKeepAlive call of a client. */
class KeepAliveStream {
  readonly #call: StreamCall;
  readonly #renewals: Renewals;
  readonly requiresLeader: boolean;
  #waiting = 0;
  #isOver = false;
  #isPaused = false;

  constructor(call: StreamCall, renewals: Renewals) {
    this.#call = call;
    this.#renewals = renewals;
    this.requiresLeader = requiresLeader(call);
    renewals.streams.add(this);
    call.onMessage = (message) => this.#receive(message);
    call.onCancel = () => this.#close();
    call.onDrain = () => this.#resume();
    call.onHalfClose = () => {
      if (this.#waiting === 0) this.#end();
      this.#isHalfClosed = true;
    };
  }

  #isHalfClosed = false;

  /** The cluster's answer to a renewal of this client. */
  answered(response: Uint8Array): void {
    if (this.#isOver) return;
    this.#waiting--;
    if (!this.#call.send(response)) this.#pause();
    else if (this.#waiting < WAITING_MAX / 2) this.#resume();
    if (this.#isHalfClosed && this.#waiting === 0) this.#end();
  }

  fail(error: RpcError): void {
    if (this.#isOver) return;
    this.#close();
    failWith(this.#call, error);
  }

  #receive(message: Uint8Array): void {
    let id: bigint;
    try {
      ({ id } = decode(LeaseKeepAliveRequest, message));
    } catch (error) {
      this.#close();
      return failWith(this.#call, error);
    }
    this.#waiting++;
    if (this.#waiting >= WAITING_MAX) this.#pause();
    this.#renewals.ask(id, this);
  }

  #end(): void {
    this.#close();
    this.#call.end();
  }

  #close(): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#renewals.leave(this);
  }

  #pause(): void {
    if (this.#isPaused) return;
    this.#isPaused = true;
    this.#call.pauseReading();
  }

  #resume(): void {
    if (!this.#isPaused || this.#isOver) return;
    this.#isPaused = false;
    this.#call.resumeReading();
  }
}

/** The renewals with one token: one stream to the cluster, opened again when it breaks. */
class Renewals {
  readonly streams = new Set<KeepAliveStream>();
  readonly #upstream: Upstream;
  readonly #token: string | undefined;
  readonly #onEmpty: () => void;
  /** By lease: who waits, as often as it has asked. */
  readonly #waiting = new Map<bigint, KeepAliveStream[]>();
  #stream: UpstreamCall<LeaseKeepAliveRequest, LeaseKeepAliveResponse> | undefined;
  #reconnect: Timer | undefined;

  constructor(upstream: Upstream, token: string | undefined, onEmpty: () => void) {
    this.#upstream = upstream;
    this.#token = token;
    this.#onEmpty = onEmpty;
  }

  ask(id: bigint, who: KeepAliveStream): void {
    const waiting = this.#waiting.get(id);
    if (waiting !== undefined) {
      waiting.push(who);
      return;
    }
    this.#waiting.set(id, [who]);
    if (this.#reconnect === undefined) this.#open().send({ id });
  }

  leave(stream: KeepAliveStream): void {
    this.streams.delete(stream);
    if (this.streams.size > 0) return;
    this.#reconnect?.cancel();
    this.#stream?.cancel();
    this.#onEmpty();
  }

  #open(): UpstreamCall<LeaseKeepAliveRequest, LeaseKeepAliveResponse> {
    if (this.#stream !== undefined) return this.#stream;
    const stream = this.#upstream.caller.stream(
      LeaseService.LeaseKeepAlive,
      {
        onMessage: (response: LeaseKeepAliveResponse) => this.#answered(response),
        onEnd: (error) => {
          if (this.#stream === stream || this.#stream === undefined) this.#ended(error);
        },
      },
      { token: this.#token, requireLeader: true },
    );
    this.#stream = stream;
    return stream;
  }

  #answered(response: LeaseKeepAliveResponse): void {
    const waiting = this.#waiting.get(response.id) ?? [];
    this.#waiting.delete(response.id);
    const bytes = LeaseKeepAliveResponse.encode(response);
    for (const stream of waiting) stream.answered(bytes);
  }

  #ended(error: unknown): void {
    this.#stream = undefined;
    if (this.streams.size === 0) return;
    if (error instanceof RpcError && error.code !== Code.UNAVAILABLE) {
      // The token is refused, or the like: another stream would end in the same way.
      for (const stream of [...this.streams]) stream.fail(error);
      return;
    }
    if (error instanceof RpcError && error.details === "etcdserver: no leader") {
      for (const stream of [...this.streams]) if (stream.requiresLeader) stream.fail(error);
    }
    const { clock } = this.#upstream.caller;
    this.#reconnect ??= clock.after(RECONNECT_MS, () => {
      this.#reconnect = undefined;
      for (const id of this.#waiting.keys()) this.#open().send({ id });
    });
  }
}
