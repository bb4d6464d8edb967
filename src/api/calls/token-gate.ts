import type { RpcRegistry, StreamCall, UnaryCall } from "../../rpc/contract.ts";
import type { EtcdServer } from "../../server/server.ts";
import { tokenOf } from "./access.ts";

/**
 * Lets a call wait for its token. A simple token comes into being when the entry of its log is applied, and a client may
 * use it at a member that is not that far yet; once it is, the token is known there or it is not one. All services are
 * registered through here. Source: etcd `server/auth/simple_token.go`, isValidSimpleToken.
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

/** Index of an entry that is not applied here yet and makes the token of the call; 0 when there is nothing to wait for. */
function indexToWaitFor(call: UnaryCall | StreamCall, server: EtcdServer): number {
  const token = tokenOf(call);
  if (token === undefined) return 0;
  const index = server.auth.tokens.indexOf(token);
  return index > server.replication.appliedIndex ? index : 0;
}

/** Should the entry not come, the call goes on all the same: its token is then an unknown one. */
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
