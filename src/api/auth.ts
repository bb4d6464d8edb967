import { AuthenticateRequest, AuthService, AuthStatusRequest, AuthStatusResponse } from "../proto/etcdserverpb.ts";
import type { RpcServer } from "../rpc/server.ts";
import { Code, errors } from "../server/errors.ts";
import type { EtcdServer } from "../server/server.ts";
import { decodeRequest, failWith } from "./calls.ts";
import type { HeaderWriter } from "./header.ts";

/**
 * The service Auth of a cluster without authentication: its status, and etcd's refusal of passwords. The rest is not
 * built yet and says so.
 */
export function registerAuth(rpc: RpcServer, server: EtcdServer, header: HeaderWriter): void {
  for (const method of Object.values(AuthService)) {
    if (method === AuthService.AuthStatus || method === AuthService.Authenticate) continue;
    rpc.unary(method.path, (call) =>
      call.fail(Code.UNIMPLEMENTED, `etcdserver: ${method.name} is not built yet; see docs/differences.md`),
    );
  }
  rpc.unary(AuthService.AuthStatus.path, (call) => {
    if (decodeRequest(call, server, AuthStatusRequest) === undefined) return;
    // An auth store that was never changed is at revision 1.
    call.respond(AuthStatusResponse.encode(AuthStatusResponse.create({ header: header.create(), authRevision: 1 })));
  });
  rpc.unary(AuthService.Authenticate.path, (call) => {
    if (decodeRequest(call, server, AuthenticateRequest) !== undefined) failWith(call, errors.authNotEnabled);
  });
}
