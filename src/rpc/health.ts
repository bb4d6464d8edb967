/**
 * The standard health service, `grpc.health.v1.Health`, with grpc-go's texts. Kubernetes and load balancers use it.
 * Source: https://github.com/grpc/grpc/blob/master/doc/health-checking.md
 */
import { Code } from "../base/grpc-codes.ts";
import { type Reader, Writer } from "../base/protobuf.ts";
import type { StreamCall } from "./contract.ts";
import { protobufRequest } from "./decode.ts";
import type { RpcServer } from "./server.ts";

export const ServingStatus = { unknown: 0, serving: 1, notServing: 2, serviceUnknown: 3 } as const;
export type ServingStatus = (typeof ServingStatus)[keyof typeof ServingStatus];

/** Maximum number of services that `List` returns. */
const LIST_MAX = 100;

export class HealthService {
  /** The empty name stands for the whole server. */
  readonly #statuses = new Map<string, ServingStatus>([["", ServingStatus.serving]]);
  readonly #watchers = new Map<string, Set<Watcher>>();
  #shutDown = false;

  constructor(rpc: RpcServer) {
    rpc.unary("/grpc.health.v1.Health/Check", (call) => {
      const service = protobufRequest(call, call.message, readService);
      if (service === undefined) return;
      const status = this.#statuses.get(service);
      if (status === undefined) call.fail(Code.NOT_FOUND, "unknown service");
      else call.respond(statusMessage(status));
    });
    rpc.unary("/grpc.health.v1.Health/List", (call) => {
      if (this.#statuses.size > LIST_MAX) {
        call.fail(Code.RESOURCE_EXHAUSTED, `server health list exceeds maximum capacity: ${LIST_MAX}`);
      } else call.respond(listMessage(this.#statuses));
    });
    rpc.stream("/grpc.health.v1.Health/Watch", (call) => {
      call.onMessage = (bytes) => {
        const service = protobufRequest(call, bytes, readService);
        call.onMessage = null;
        if (service !== undefined) this.#watch(call, service);
      };
    });
  }

  /** Sets the status of a service and notifies its watchers. */
  set(service: string, status: ServingStatus): void {
    if (this.#shutDown) return;
    this.#statuses.set(service, status);
    for (const watcher of this.#watchers.get(service) ?? []) watcher.tell(status);
  }

  /** From now on every service is not serving, whatever is set. */
  shutDown(): void {
    for (const service of this.#statuses.keys()) this.set(service, ServingStatus.notServing);
    this.#shutDown = true;
  }

  #watch(call: StreamCall, service: string): void {
    const watcher = new Watcher(call);
    const all = this.#watchers.get(service) ?? new Set();
    this.#watchers.set(service, all.add(watcher));
    call.onCancel = () => {
      all.delete(watcher);
      if (all.size === 0 && this.#watchers.get(service) === all) this.#watchers.delete(service);
    };
    watcher.tell(this.#statuses.get(service) ?? ServingStatus.serviceUnknown);
  }
}

/** Sends only changes, and to a slow client only the last one. */
class Watcher {
  readonly #call: StreamCall;
  #sent = -1;
  #wanted = -1;
  #waiting = false;

  constructor(call: StreamCall) {
    this.#call = call;
    call.onDrain = () => {
      this.#waiting = false;
      this.#send();
    };
  }

  tell(status: ServingStatus): void {
    this.#wanted = status;
    if (!this.#waiting) this.#send();
  }

  #send(): void {
    if (this.#wanted === this.#sent) return;
    this.#sent = this.#wanted;
    this.#waiting = !this.#call.send(statusMessage(this.#sent));
  }
}

function readService(reader: Reader): string {
  let service = "";
  while (reader.pos < reader.end) {
    const tag = reader.uint32();
    if (tag === 10) service = reader.string();
    else reader.skip(tag);
  }
  return service;
}

function writeStatus(writer: Writer, status: number): void {
  if (status === 0) return;
  writer.uint32(status);
  writer.tag(8);
}

function statusMessage(status: number): Uint8Array {
  const writer = new Writer().reset();
  writeStatus(writer, status);
  return writer.finish();
}

/** A map field of service name to status message. */
function listMessage(statuses: ReadonlyMap<string, number>): Uint8Array {
  const writer = new Writer().reset();
  for (const [service, status] of statuses) {
    const entry = writer.length;
    writeStatus(writer, status);
    writer.uint32(writer.length - entry);
    writer.tag(18);
    writer.string(service);
    writer.tag(10);
    writer.uint32(writer.length - entry);
    writer.tag(10);
  }
  return writer.finish();
}
