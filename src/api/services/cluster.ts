import { parseUrls } from "../../config/values/url.ts";
import { type Member as ClusterMember, memberId } from "../../membership/member.ts";
import {
  ClusterService,
  Member,
  MemberAddRequest,
  MemberAddResponse,
  MemberListRequest,
  MemberListResponse,
  MemberPromoteRequest,
  MemberPromoteResponse,
  MemberRemoveRequest,
  MemberRemoveResponse,
  MemberUpdateRequest,
  MemberUpdateResponse,
} from "../../proto/etcdserverpb.ts";
import type { RpcRegistry, UnaryCall } from "../../rpc/contract.ts";
import type { ConfChangeOutcome } from "../../server/apply/conf-changes.ts";
import { EtcdError, errors } from "../../server/contract/errors.ts";
import type { EtcdServer } from "../../server/server.ts";
import { type Access, refused, tokenOf } from "../calls/access.ts";
import { decodeRequest, failWith, settle } from "../calls/calls.ts";
import type { HeaderWriter } from "../calls/header.ts";

/** The service Cluster. Source: etcd `server/etcdserver/api/v3rpc/member.go`. */
export class ClusterApi {
  readonly #server: EtcdServer;
  readonly #header: HeaderWriter;
  readonly #access: Access;

  constructor(server: EtcdServer, header: HeaderWriter, access: Access) {
    this.#server = server;
    this.#header = header;
    this.#access = access;
  }

  register(rpc: RpcRegistry): void {
    const { forRoot } = this.#access;
    rpc.unary(ClusterService.MemberList.path, (call) => this.#list(call));
    rpc.unary(
      ClusterService.MemberAdd.path,
      forRoot((call) => settle(call, this.#add(call))),
    );
    rpc.unary(
      ClusterService.MemberRemove.path,
      forRoot((call) => settle(call, this.#remove(call))),
    );
    rpc.unary(
      ClusterService.MemberUpdate.path,
      forRoot((call) => settle(call, this.#update(call))),
    );
    rpc.unary(
      ClusterService.MemberPromote.path,
      forRoot((call) => settle(call, this.#promote(call))),
    );
  }

  #list(call: UnaryCall): void {
    const request = decodeRequest(call, MemberListRequest);
    if (request === undefined) return;
    const respond = (): void => {
      if (refused(call, this.#access.refuseNobody(call))) return;
      const members = this.#server.cluster.members().map(toMessage);
      call.respond(
        MemberListResponse.encode(MemberListResponse.create({ header: this.#header.withoutRevision(), members })),
      );
    };
    if (!request.linearizable) respond();
    else {
      this.#server.replication.read({
        serve: (error) => (error === null ? respond() : failWith(call, error)),
        failed: (error) => call.crashed(error),
      });
    }
  }

  async #add(call: UnaryCall): Promise<void> {
    const request = decodeRequest(call, MemberAddRequest);
    if (request === undefined) return;
    const peerUrls = checkedUrls(request.peerUrls);
    if (peerUrls === undefined) return failWith(call, errors.memberBadUrls);
    const seconds = Math.floor(this.#server.options.clock.wallMs() / 1000);
    const id = memberId(peerUrls, "", seconds);
    const member = { id, peerUrls, isLearner: request.isLearner, name: "", clientUrls: [] };
    const members = succeeded(call, await this.#server.membership.add(member));
    if (members === undefined) return;
    const response = MemberAddResponse.create({
      header: this.#header.withoutRevision(),
      member: toMessage(member),
      members: members.map(toMessage),
    });
    call.respond(MemberAddResponse.encode(response));
  }

  async #remove(call: UnaryCall): Promise<void> {
    const request = decodeRequest(call, MemberRemoveRequest);
    if (request === undefined) return;
    const members = succeeded(call, await this.#server.membership.remove(request.id));
    if (members === undefined) return;
    const header = this.#header.withoutRevision();
    call.respond(MemberRemoveResponse.encode(MemberRemoveResponse.create({ header, members: members.map(toMessage) })));
  }

  async #update(call: UnaryCall): Promise<void> {
    const request = decodeRequest(call, MemberUpdateRequest);
    if (request === undefined) return;
    // etcd accepts any URLs, and members that cannot parse them crash, all over the cluster.
    const peerUrls = checkedUrls(request.peerUrls);
    if (peerUrls === undefined) {
      const isKnown = this.#server.cluster.member(request.id) !== undefined;
      return failWith(call, isKnown ? errors.memberBadUrls : errors.memberNotFound);
    }
    const members = succeeded(call, await this.#server.membership.update(request.id, peerUrls));
    if (members === undefined) return;
    const header = this.#header.withoutRevision();
    call.respond(MemberUpdateResponse.encode(MemberUpdateResponse.create({ header, members: members.map(toMessage) })));
  }

  async #promote(call: UnaryCall): Promise<void> {
    const request = decodeRequest(call, MemberPromoteRequest);
    if (request === undefined) return;
    const members = succeeded(call, await this.#server.membership.promote(request.id, tokenOf(call)));
    if (members === undefined) return;
    const header = this.#header.withoutRevision();
    call.respond(
      MemberPromoteResponse.encode(MemberPromoteResponse.create({ header, members: members.map(toMessage) })),
    );
  }
}

/** The members after a change; undefined when the call was answered with an error. */
function succeeded(call: UnaryCall, outcome: ConfChangeOutcome): readonly ClusterMember[] | undefined {
  if (!(outcome instanceof EtcdError)) return outcome;
  failWith(call, outcome);
  return undefined;
}

/** Sorted, as in etcd; undefined when one is not a peer URL, or there is none. */
function checkedUrls(urls: readonly string[]): string[] | undefined {
  if (urls.length === 0 || urls.some((url) => url.includes(","))) return undefined;
  try {
    return parseUrls(urls.join(",")).map(({ text }) => text);
  } catch {
    return undefined;
  }
}

function toMessage(member: ClusterMember): Member {
  return Member.create({
    id: member.id,
    name: member.name,
    peerUrls: [...member.peerUrls],
    clientUrls: [...member.clientUrls],
    isLearner: member.isLearner,
  });
}
