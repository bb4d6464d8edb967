import { messageOf } from "../../base/errors.ts";
import type { Logger } from "../../base/log.ts";
import type { Cluster } from "../../membership/cluster.ts";
import { formatId, type Member } from "../../membership/member.ts";
import type { PeerClient, PeerVersions } from "../contract/network.ts";

/** Versions by member; undefined for those that did not answer. */
export type MemberVersions = ReadonlyMap<bigint, Pick<PeerVersions, "server" | "cluster"> | undefined>;

/** Asks all members for their versions, concurrently; the local one is known. Never rejects. */
export async function askMemberVersions(options: {
  readonly cluster: Pick<Cluster, "localId" | "members" | "version">;
  readonly peerClient: Pick<PeerClient, "versions">;
  readonly serverVersion: string;
  readonly logger: Logger;
}): Promise<MemberVersions> {
  const { cluster, peerClient, serverVersion, logger } = options;
  const askVersions = async (member: Member): Promise<PeerVersions | undefined> => {
    try {
      return await peerClient.versions({ id: member.id, urls: member.peerUrls });
    } catch (error) {
      logger.warn("failed to get version", {
        "remote-member-id": formatId(member.id),
        error: messageOf(error),
      });
      return undefined;
    }
  };
  const versions = new Map<bigint, Pick<PeerVersions, "server" | "cluster"> | undefined>();
  const waiting: Promise<void>[] = [];
  for (const member of cluster.members()) {
    if (member.id === cluster.localId) {
      versions.set(member.id, { server: serverVersion, cluster: cluster.version ?? "not_decided" });
    } else waiting.push(askVersions(member).then((answer) => void versions.set(member.id, answer)));
  }
  // A single member decides in the same turn.
  if (waiting.length > 0) await Promise.all(waiting);
  return versions;
}
