import type { PeerClient } from "../../src/server/contract/network.ts";

const nobody = (): Promise<never> => Promise.reject(new Error("this member has no peers"));

/** The PeerClient of a single member: no request is answered. */
export const noPeers: PeerClient = {
  members: nobody,
  versions: nobody,
  hashKv: nobody,
  downgradeEnabled: nobody,
  promoteMember: nobody,
  renewLease: nobody,
  leaseTimeToLive: nobody,
};
