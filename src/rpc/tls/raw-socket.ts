import type { Socket } from "node:net";
import type { Duplex } from "node:stream";

/** A connection at any level: the accepted socket, or TLS on it. */
export type AnySocket = Socket | Duplex;

/** The accepted socket under a TLS socket, which node keeps under this name; any other socket is its own. */
export const rawSocket = (socket: AnySocket): Socket => (socket as { _parent?: Socket })._parent ?? (socket as Socket);
