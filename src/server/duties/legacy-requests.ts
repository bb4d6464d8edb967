import type { Clock } from "../../base/clock.ts";
import type { Logger } from "../../base/log.ts";
import { compareVersions, minorVersion, parseVersion } from "../../base/semver.ts";
import { varintSize, writeVarint } from "../../base/varint.ts";
import type { Cluster } from "../../membership/cluster.ts";
import { formatId, type Member } from "../../membership/member.ts";
import type { ClusterMemberAttrSetRequest, ClusterVersionSetRequest } from "../../proto/membershippb.ts";
import { type EtcdError, errors } from "../contract/errors.ts";
import type { PeerClient } from "../contract/network.ts";
import { Op } from "../log/op.ts";
import type { Empty } from "../log/operations.ts";
import type { Propose } from "../log/proposal.ts";
import { askMemberVersions } from "./member-versions.ts";

export interface LegacyRequestsOptions {
  readonly cluster: Pick<Cluster, "localId" | "members" | "version">;
  /** The members, until they are known from the log. */
  readonly initialMembers: readonly Member[];
  readonly peerClient: Pick<PeerClient, "versions">;
  readonly serverVersion: string;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly request: Propose;
  /** 0n for none. */
  readonly leader: () => bigint;
  readonly isStopped: () => boolean;
}

/** From this version on, members accept the cluster version and member attributes in v3 form. */
const FIRST_WITHOUT = minorVersion({ major: 3, minor: 5 });
const LEADER_POLL_MS = 20;

/**
 * Proposes the two requests with which every cluster's log begins: the cluster version, and the attributes of a member.
 * A 3.4 member crashes on the form used since 3.5, so while there is one in the cluster they use the v2 API's form, as
 * in 3.5; 3.6 still reads it. Source: etcd 3.5 `server/etcdserver/server.go`, publish.
 */
export class LegacyRequests {
  readonly #options: LegacyRequestsOptions;

  constructor(options: LegacyRequestsOptions) {
    this.#options = options;
  }

  async setClusterVersion(
    request: ClusterVersionSetRequest,
    payload: Uint8Array,
    isWanted: () => boolean,
  ): Promise<Empty | EtcdError> {
    const hasOldMember = await this.#hasOldMember();
    if (!isWanted()) return errors.leaderChanged;
    if (!hasOldMember) return this.#options.request(Op.CLUSTER_VERSION_SET, request, payload);
    const operation = { op: Op.CLUSTER_VERSION_SET, request };
    return this.#options.request(Op.V2, operation, encodeV2Put("/0/version", request.ver));
  }

  async setAttributes(request: ClusterMemberAttrSetRequest, payload: Uint8Array): Promise<Empty | EtcdError> {
    if (!(await this.#hasOldMember())) return this.#options.request(Op.CLUSTER_MEMBER_ATTR_SET, request, payload);
    const { name = "", clientUrls = [] } = request.memberAttributes ?? {};
    const path = `/0/members/${formatId(request.memberId)}/attributes`;
    const value = JSON.stringify({ name, ...(clientUrls.length > 0 && { clientURLs: clientUrls }) });
    return this.#options.request(Op.V2, { op: Op.CLUSTER_MEMBER_ATTR_SET, request }, encodeV2Put(path, value));
  }

  /** Checked once there is a leader: then the possible members can be asked. */
  async #hasOldMember(): Promise<boolean> {
    const { cluster, clock, leader, isStopped, peerClient, serverVersion, logger } = this.#options;
    const agreed = parseVersion(cluster.version ?? "");
    if (agreed !== undefined && compareVersions(agreed, FIRST_WITHOUT) >= 0) return false;
    if (this.#members().length < 2) return false;
    while (leader() === 0n) {
      if (isStopped()) return false;
      await new Promise<void>((resolve) => clock.after(LEADER_POLL_MS, resolve));
    }
    const versions = await askMemberVersions({
      peerClient,
      serverVersion,
      logger,
      cluster: { localId: cluster.localId, version: cluster.version, members: () => this.#members() },
    });
    return [...versions.values()].some((answer) => {
      const version = answer === undefined ? undefined : parseVersion(answer.server);
      return version !== undefined && compareVersions(version, FIRST_WITHOUT) < 0;
    });
  }

  #members(): Member[] {
    const known = this.#options.cluster.members();
    return known.length > 0 ? known : [...this.#options.initialMembers];
  }
}

/** An etcdserverpb.Request of the v2 API that puts a value. */
function encodeV2Put(path: string, value: string): Buffer {
  return Buffer.concat([encodeText(2, "PUT"), encodeText(3, path), encodeText(4, value)]);
}

function encodeText(field: number, text: string): Buffer {
  const bytes = Buffer.from(text);
  const head = Buffer.alloc(1 + varintSize(bytes.length));
  head[0] = field * 8 + 2;
  writeVarint(head, 1, bytes.length);
  return Buffer.concat([head, bytes]);
}
