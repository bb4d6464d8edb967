/** The services that a proxy forwards as they are: Auth, Maintenance, Lock, Election. */
import type { MethodType } from "../../base/protobuf.ts";
import { safetyOf } from "../../client/safety.ts";
import { AuthService, MaintenanceService } from "../../proto/etcdserverpb.ts";
import { ElectionService } from "../../proto/v3electionpb.ts";
import { LockService } from "../../proto/v3lockpb.ts";
import type { RpcRegistry, StreamCall } from "../../rpc/contract.ts";
import { asBytes, failWith, requiresLeader, tokenOf, tooMany, type Upstream } from "./upstream.ts";

/** Methods whose answer may take any time. */
const WAITING = new Set<string>(
  [MaintenanceService.Defragment, LockService.Lock, ElectionService.Campaign].map(({ path }) => path),
);

export function registerPassThrough(rpc: RpcRegistry, upstream: Upstream): void {
  for (const service of [AuthService, MaintenanceService, LockService, ElectionService]) {
    for (const method of Object.values<MethodType>(service)) {
      const { path } = method;
      if (method.responseStream) rpc.stream(path, (call) => forwardStream(call, method, upstream));
      else {
        const options = { safety: safetyOf(method), mayWait: WAITING.has(path) };
        rpc.unary(path, (call) => upstream.forward(call, method, options));
      }
    }
  }
}

/** One request, many responses, as fast as the client takes them. */
function forwardStream(call: StreamCall, method: MethodType, upstream: Upstream): void {
  call.onMessage = (message) => {
    call.onMessage = () => {};
    if (!upstream.admit(message.length)) return failWith(call, tooMany());
    let isOver = false;
    const over = (): void => {
      if (!isOver) upstream.release(message.length);
      isOver = true;
    };
    const stream = upstream.caller.stream(
      asBytes(method),
      {
        onMessage: (response: Uint8Array) => {
          if (!call.send(response)) stream.pause();
        },
        onEnd: (error) => {
          over();
          if (error === undefined) call.end();
          else failWith(call, error);
        },
      },
      { token: tokenOf(call), requireLeader: requiresLeader(call) },
    );
    call.onDrain = () => stream.resume();
    call.onCancel = () => {
      stream.cancel();
      over();
    };
    stream.send(message, true);
  };
}
