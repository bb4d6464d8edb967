/** The members of the cluster. */
import { ClusterService, type MemberListResponse, type Member as MemberMessage } from "../proto/etcdserverpb.ts";
import type { Caller } from "./caller.ts";
import type { CallOptions } from "./options.ts";

/** A member of the cluster. */
export interface Member {
  readonly id: bigint;
  /** Empty until it has started. */
  readonly name: string;
  readonly peerUrls: readonly string[];
  readonly clientUrls: readonly string[];
  readonly isLearner: boolean;
}

/**
 * @example
 * for (const { name, clientUrls } of await client.cluster.members()) console.log(name, clientUrls);
 */
export class Cluster {
  readonly #caller: Caller;

  /** @internal */
  constructor(caller: Caller) {
    this.#caller = caller;
  }

  /** All members; with `serializable` as the member asked knows them. */
  members(options?: CallOptions & { readonly serializable?: boolean }): Promise<readonly Member[]> {
    const request = { linearizable: options?.serializable !== true };
    return this.#caller.unary(ClusterService.MemberList, request, "read", options, membersOf);
  }

  /** Adds a member, before it is started with `--initial-cluster-state existing`. */
  add(
    peerUrls: readonly string[],
    options?: CallOptions & { readonly isLearner?: boolean },
  ): Promise<{ readonly member: Member; readonly members: readonly Member[] }> {
    const request = { peerUrls: [...peerUrls], isLearner: options?.isLearner ?? false };
    return this.#caller.unary(ClusterService.MemberAdd, request, "write", options, ({ member, members }) => ({
      member: memberOf(member!),
      members: members.map(memberOf),
    }));
  }

  /** Makes a learner a voter. */
  promote(id: bigint, options?: CallOptions): Promise<readonly Member[]> {
    return this.#caller.unary(ClusterService.MemberPromote, { id }, "write", options, membersOf);
  }

  /** Changes the URLs at which other members reach it. */
  update(id: bigint, peerUrls: readonly string[], options?: CallOptions): Promise<readonly Member[]> {
    return this.#caller.unary(
      ClusterService.MemberUpdate,
      { id, peerUrls: [...peerUrls] },
      "write",
      options,
      membersOf,
    );
  }

  /** Removes a member. */
  remove(id: bigint, options?: CallOptions): Promise<readonly Member[]> {
    return this.#caller.unary(ClusterService.MemberRemove, { id }, "write", options, membersOf);
  }

  /** Makes the client URLs of all started voters the endpoints of this client, and gives them. */
  async sync(options?: CallOptions): Promise<readonly string[]> {
    const members = await this.members(options);
    const endpoints = members.filter(({ isLearner }) => !isLearner).flatMap(({ clientUrls }) => clientUrls);
    if (endpoints.length > 0) this.#caller.links.setEndpoints(endpoints);
    return endpoints;
  }
}

function membersOf({ members }: Pick<MemberListResponse, "members">): readonly Member[] {
  return members.map(memberOf);
}

function memberOf({ id, name, peerUrls, clientUrls, isLearner }: MemberMessage): Member {
  return { id, name, peerUrls, clientUrls, isLearner };
}
