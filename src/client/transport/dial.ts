/** Opens the socket to an endpoint: TCP or a Unix socket, with TLS where it is asked for, up to the agreed protocol. */
import { readFileSync } from "node:fs";
import { connect as connectTcp, isIP, type Socket } from "node:net";
import { type ConnectionOptions, checkServerIdentity, connect as connectTls } from "node:tls";
import type { Clock } from "../../base/clock.ts";
import { messageOf } from "../../base/errors.ts";
import { type Address, hostPort } from "../endpoint.ts";
import type { ClientTls } from "../options.ts";
import { systemRoots } from "../roots.ts";

export interface Dialled {
  readonly scheme: "http" | "https";
  readonly authority: string;
}

/** Calls `done` once, with a socket or the text of what went wrong. Returns how to give up. */
export function dial(
  address: Address,
  tls: ClientTls | undefined,
  timeoutMs: number,
  clock: Clock,
  done: (socket: Socket | undefined, problem: string) => void,
): () => void {
  const to = address.path === undefined ? hostPort(address) : address.path;
  let socket: Socket | undefined;
  let isOver = false;
  const timer = clock.after(timeoutMs, () => fail(`${to}: not connected within ${timeoutMs} ms`));
  const fail = (problem: string) => {
    if (isOver) return;
    isOver = true;
    timer.cancel();
    socket?.destroy();
    done(undefined, problem);
  };
  const succeed = (connected: Socket) => {
    if (isOver) return;
    isOver = true;
    timer.cancel();
    connected.off("error", onError);
    connected.off("close", onClose);
    done(connected, "");
  };
  const onError = (error: Error) => fail(`${to}: ${problemOf(error)}`);
  const onClose = () => fail(`${to}: the connection was closed`);
  try {
    const where = address.path === undefined ? { host: address.host, port: address.port } : { path: address.path };
    if (tls === undefined) {
      const plain = (socket = connectTcp(where));
      plain.once("connect", () => succeed(plain));
    } else {
      const secure = connectTls({ ...where, ...tlsOptions(address, tls) });
      socket = secure;
      secure.once("secureConnect", () => {
        if (secure.alpnProtocol === "h2" || secure.alpnProtocol === false) succeed(secure);
        else fail(`${to}: the server speaks ${secure.alpnProtocol}, not HTTP/2`);
      });
    }
    socket.on("error", onError);
    socket.on("close", onClose);
  } catch (error) {
    clock.defer(() => fail(`${to}: ${problemOf(error)}`));
  }
  return () => fail(`${to}: given up`);
}

function tlsOptions(address: Address, tls: ClientTls): ConnectionOptions {
  const name = tls.serverName ?? address.host;
  const ca = pem(tls.ca, tls.caFile) ?? systemPem();
  const cert = pem(tls.cert, tls.certFile);
  const key = pem(tls.key, tls.keyFile);
  const options = {
    ALPNProtocols: ["h2"],
    ...(ca === undefined ? {} : { ca }),
    ...(cert === undefined ? {} : { cert }),
    ...(key === undefined ? {} : { key }),
    // SNI must not be an address.
    ...(isIP(name) === 0 ? { servername: name } : {}),
    rejectUnauthorized: tls.insecureSkipVerify !== true,
    // Every CA in the file is trusted, an intermediate too, as in Go.
    allowPartialTrustChain: true,
    checkServerIdentity: (_host: string, certificate: Parameters<typeof checkServerIdentity>[1]) =>
      checkServerIdentity(name, certificate),
  };
  return options;
}

function pem(value: string | Uint8Array | undefined, file: string | undefined): Buffer | undefined {
  if (value !== undefined) return typeof value === "string" ? Buffer.from(value) : Buffer.from(value);
  return file === undefined ? undefined : readFileSync(file);
}

function systemPem(): Buffer | undefined {
  const roots = systemRoots();
  return roots === undefined ? undefined : Buffer.from(roots);
}

/** A name with several addresses fails with one error for each. */
function problemOf(error: unknown): string {
  return error instanceof AggregateError ? error.errors.map(messageOf).join("; ") : messageOf(error);
}
