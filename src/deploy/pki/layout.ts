/**
 * Where the certificates of a cluster are in their directory: the authority at the top, below it a directory for each
 * member and one for clients. What belongs on one host is in one directory.
 */
import { join } from "node:path";

export interface Pair {
  readonly cert: string;
  readonly key: string;
}

export const authorityPair = (dir: string): Pair => ({ cert: join(dir, "ca.crt"), key: join(dir, "ca.key") });
/** The certificate of an authority that is trusted beside `ca.crt`, while one takes the other's place. */
export const trustedBesides = (dir: string): string => join(dir, "ca-besides.crt");
export const revocationListPath = (dir: string): string => join(dir, "ca.crl");
export const revokedPath = (dir: string): string => join(dir, "revoked.json");
export const clientPair = (dir: string, name: string): Pair => pairAt(join(dir, "clients", name));
export const serverPair = (dir: string, member: string): Pair => pairAt(join(dir, "members", member, "server"));
export const peerPair = (dir: string, member: string): Pair => pairAt(join(dir, "members", member, "peer"));
/** The one certificate of all members. */
export const sharedPair = (dir: string): Pair => pairAt(join(dir, "members", "etcd"));

export const requestPath = ({ cert }: Pair): string => cert.replace(/\.crt$/, ".csr");

const pairAt = (path: string): Pair => ({ cert: `${path}.crt`, key: `${path}.key` });
