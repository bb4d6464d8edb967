import { ClusterService, Member, MemberListRequest, MemberListResponse } from "../proto/etcdserverpb.ts";
import type { RpcServer, UnaryCall } from "../rpc/server.ts";
import { Code } from "../server/errors.ts";
import type { EtcdServer } from "../server/server.ts";
import { decodeRequest, failWith } from "./calls.ts";
import type { HeaderWriter } from "./header.ts";

/** The service Cluster. Source: etcd `server/etcdserver/api/v3rpc/member.go`. */
export class ClusterApi {
  readonly #server: EtcdServer;
  readonly #header: HeaderWriter;

  constructor(server: EtcdServer, header: HeaderWriter) {
    this.#server = server;
    this.#header = header;
  }

  register(rpc: RpcServer): void {
    rpc.unary(ClusterService.MemberList.path, (call) => this.#list(call));
    for (const method of ["MemberAdd", "MemberRemove", "MemberUpdate", "MemberPromote"] as const) {
      rpc.unary(ClusterService[method].path, (call) =>
        call.fail(
          Code.UNIMPLEMENTED,
          `etcdserver: ${method} needs a cluster of several members, which is not built yet; see docs/differences.md`,
        ),
      );
    }
  }

  #list(call: UnaryCall): void {
    const request = decodeRequest(call, this.#server, MemberListRequest);
    if (request === undefined) return;
    const respond = (): void => {
      const members = this.#server.cluster.members().map((member) =>
        Member.create({
          id: member.id,
          name: member.name,
          peerUrls: [...member.peerUrls],
          clientUrls: [...member.clientUrls],
          isLearner: member.isLearner,
        }),
      );
      call.respond(
        MemberListResponse.encode(MemberListResponse.create({ header: this.#header.withoutRevision(), members })),
      );
    };
    if (!request.linearizable) respond();
    else this.#server.read({ serve: (error) => (error === null ? respond() : failWith(call, error)) });
  }
}
