/** The questions that members ask each other, carried over the simulated network. */
import { fromByteString } from "../../src/mvcc/types.ts";
import { errors } from "../../src/server/errors.ts";
import type { PeerAddress, PeerClient } from "../../src/server/network.ts";
import { ETCD_VERSION } from "../../src/server/options.ts";
import type { EtcdServer } from "../../src/server/server.ts";
import type { MachineWorld, Running } from "./machine.ts";
import type { SimProcess } from "./scheduler.ts";

export function peerClientOf(world: MachineWorld, asker: { machine: string; process: SimProcess }): PeerClient {
  /** Asks the member behind a URL. */
  const ask = <T>(url: string, answer: (running: Running) => Promise<T>): Promise<T> => {
    const running = world.machineOf(url)?.running;
    if (running === undefined)
      return world.network.ask<T>(asker, 0n, () => Promise.reject(new Error("no such member")));
    return world.network.ask(asker, running.parts.memberId, () => answer(running));
  };
  const askPeer = <T>(peer: PeerAddress, answer: (server: EtcdServer) => Promise<T>): Promise<T> =>
    ask(peer.urls[0] ?? "", ({ server }) => answer(server));
  return {
    members: (url) =>
      ask(url, async ({ server }) => ({ clusterId: server.cluster.id, members: server.cluster.members() })),
    versions: (peer) =>
      askPeer(peer, async (server) => ({
        server: ETCD_VERSION,
        cluster: server.cluster.version ?? "not_decided",
        storage: server.storageVersion ?? "",
      })),
    hashKv: (peer, revision) =>
      askPeer(peer, async (server) => {
        const found = await server.store.hashKv(revision);
        return {
          hash: found.hash,
          revision: found.currentRevision,
          compactRevision: found.compactRevision,
          hashRevision: found.hashRevision,
        };
      }),
    downgradeEnabled: () => Promise.resolve(false),
    promoteMember: () => Promise.reject(errors.notLeader),
    renewLease: (peer, id) =>
      askPeer(
        peer,
        (server) =>
          new Promise((resolve, reject) => {
            server.lessor.renew(id, (error, ttl) => (error === null ? resolve(ttl) : reject(errors.leaseNotFound)));
          }),
      ),
    leaseTimeToLive: (peer, id, withKeys) =>
      askPeer(peer, async (server) => {
        const found = server.lessor.timeToLive(id);
        if (found === undefined) throw errors.leaseNotFound;
        return {
          ttl: found.ttl,
          grantedTtl: found.grantedTtl,
          keys: withKeys ? server.lessor.keysOf(id).map(fromByteString) : [],
        };
      }),
  };
}
