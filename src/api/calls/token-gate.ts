import type { RpcRegistry, StreamCall, UnaryCall } from "../../rpc/contract.ts";
import type { EtcdServer } from "../../server/server.ts";
import { tokenOf } from "./access.ts";

/**
 * Delays a call until its token is known. A simple token is created when its log entry is applied, and a client may use
 * it at a member that has not applied it yet; after that, the token is known there or invalid. All services are
 * registered through this. Source: etcd `server/auth/simple_token.go`, isValidSimpleToken.
 */
export function withTokenGate(rpc: RpcRegistry, server: EtcdServer): RpcRegistry {
  return {
    unary(path, handler) {
      rpc.unary(path, (call) => {
        const index = server.auth.enabled ? indexToWaitFor(call, server) : 0;
        if (index === 0) handler(call);
        else holdUnary(call, server, index, () => handler(call));
      });
    },
    stream(path, handler) {
      rpc.stream(path, (call) => {
        const index = server.auth.enabled ? indexToWaitFor(call, server) : 0;
        if (index === 0) handler(call);
        else holdStream(call, server, index, () => handler(call));
      });
    },
  };
}

/** Index of an unapplied entry that makes the call's token; 0 when there is nothing to wait for. */
function indexToWaitFor(call: UnaryCall | StreamCall, server: EtcdServer): number {
  const token = tokenOf(call);
  if (token === undefined) return 0;
  const index = server.auth.tokens.indexOf(token);
  return index > server.replication.appliedIndex ? index : 0;
}

/** If the entry does not arrive, the call continues with an unknown token. */
function holdUnary(call: UnaryCall, server: EtcdServer, index: number, proceed: () => void): void {
  server.replication.appliedWaiters.add(index, server.options.clock.nowMs(), () => {
    if (!call.cancelled) proceed();
  });
}

function holdStream(call: StreamCall, server: EtcdServer, index: number, proceed: () => void): void {
  call.pauseReading();
  server.replication.appliedWaiters.add(index, server.options.clock.nowMs(), () => {
    if (call.cancelled) return;
    proceed();
    call.resumeReading();
  });
}
