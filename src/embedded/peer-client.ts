/** Questions between the members of one process: asked of the other's server itself. */

import { EtcdError } from "../server/contract/errors.ts";
import type { PeerAddress, PeerClient } from "../server/contract/network.ts";
import type { EtcdServer } from "../server/server.ts";

/** `find` gives the running member that is reached at an id or a peer URL, or throws why it is not. */
export function embeddedPeerClient(find: (who: bigint | string) => EtcdServer): PeerClient {
  const at = ({ id }: PeerAddress): EtcdServer => find(id);
  return {
    async members(peerUrl) {
      const { cluster } = find(peerUrl);
      return { clusterId: cluster.id, members: cluster.members() };
    },
    async versions(peer) {
      const { serverVersion, cluster, storageVersion } = at(peer);
      return { server: serverVersion, cluster: cluster.version ?? "not_decided", storage: storageVersion ?? "unknown" };
    },
    async hashKv(peer, revision) {
      const { hash, compactRevision, hashRevision, currentRevision } = await at(peer).store.hashKv(revision);
      return { hash, revision: currentRevision, compactRevision, hashRevision };
    },
    async downgradeEnabled(peer) {
      const { downgrade, version } = at(peer).cluster;
      return downgrade.enabled && version !== downgrade.targetVersion;
    },
    async promoteMember(leader, learnerId, token) {
      const outcome = await at(leader).membership.promote(learnerId, token);
      if (outcome instanceof EtcdError) throw outcome;
      return outcome;
    },
    renewLease: (leader, leaseId) =>
      new Promise((resolve, reject) => {
        at(leader).duties.leases.renewForPeer(leaseId, (error, ttl) => {
          if (error === null) resolve(ttl);
          else reject(error);
        });
      }),
    async leaseTimeToLive(leader, leaseId, withKeys) {
      const found = await at(leader).duties.leases.timeToLiveHere(leaseId, withKeys);
      if (found instanceof EtcdError) throw found;
      return found;
    },
  };
}
