import { createHash } from "node:crypto";
import type { TLSSocket } from "node:tls";
import { AuthInfo, NOBODY } from "../../auth/auth-info.ts";
import type { AuthProblem } from "../../auth/problems.ts";
import { Complaints } from "../../base/complaints.ts";
import type { Slices } from "../../base/slices.ts";
import type { CallInfo, RpcSocket } from "../../rpc/contract.ts";
import { namesOf } from "../../rpc/tls/certificate-names.ts";
import { PermissionChecker } from "../../server/apply/permissions.ts";
import { type EtcdError, errors } from "../../server/contract/errors.ts";
import type { Op } from "../../server/log/op.ts";
import type { RequestOf } from "../../server/log/operations.ts";
import type { Outcome } from "../../server/log/outcome.ts";
import type { QueuedProposal } from "../../server/log/proposal.ts";
import type { EtcdServer } from "../../server/server.ts";
import type { Tracer } from "../tracing/tracer.ts";
import { failWith } from "./calls.ts";
import { TokenFailures } from "./token-failures.ts";

/**
 * Who makes a call, and what that user may do: every service checks it here. While authentication is disabled, each
 * check is one test of a boolean. Source: etcd `server/etcdserver/v3_server.go` (AuthInfoFromCtx) and
 * `server/auth/store.go`.
 */
export class Access {
  readonly permissions: PermissionChecker;
  readonly #server: EtcdServer;
  readonly #tracer: Tracer | undefined;
  readonly #trustsCertificates: boolean;
  readonly #complaints: Complaints;
  readonly #failures: TokenFailures;
  /** Common names by connection; empty when the certificate has none. */
  readonly #commonNames = new WeakMap<RpcSocket, string | null>();

  constructor(server: EtcdServer, tracer?: Tracer) {
    this.#server = server;
    this.#tracer = tracer;
    this.permissions = new PermissionChecker(server.auth, server.lessor);
    const { clock, logger } = server.options;
    this.#complaints = new Complaints(logger, clock);
    this.#failures = new TokenFailures(clock);
    this.#trustsCertificates = server.options.auth?.clientCertAuth === true;
  }

  /** Authentication is enabled. */
  get enabled(): boolean {
    return this.#server.auth.enabled;
  }

  /**
   * The user of a call by its token, or else by its certificate; NOBODY without either. Also while authentication is
   * disabled.
   */
  userOf(call: CallInfo): AuthInfo | EtcdError {
    const { auth } = this.#server;
    if (!auth.enabled) return NOBODY;
    const token = tokenOf(call);
    if (token === undefined) return this.#userOfCertificate(call) ?? NOBODY;
    const isCostly = auth.tokens.isCostly(token);
    if (isCostly && this.#failures.tooMany(call.remoteAddress)) return errors.tooManyRequests;
    const user = auth.infoOf(token);
    if (user !== undefined) return user;
    if (isCostly) this.#failures.add(call.remoteAddress);
    const address = { "remote-addr": call.remoteAddress };
    this.#complaints.warn("invalid auth token", address, { "token-fingerprint": fingerprintOf(token) });
    return errors.invalidAuthToken;
  }

  /** The same for records of what has been done: NOBODY for a token that is not known, which is not checked again. */
  knownUserOf(call: CallInfo): AuthInfo {
    const { auth } = this.#server;
    if (!auth.enabled) return NOBODY;
    const token = tokenOf(call);
    if (token === undefined) return this.#userOfCertificate(call) ?? NOBODY;
    return (auth.tokens.isCostly(token) ? undefined : auth.infoOf(token)) ?? NOBODY;
  }

  /** Proposes a request as the caller's user; permissions are checked when it is applied. */
  propose(call: CallInfo, proposal: QueuedProposal): void {
    if (this.#server.auth.enabled) {
      const user = this.userOf(call);
      if (!(user instanceof AuthInfo)) {
        proposal.refuse(user);
        return;
      }
      proposal.user = user;
    }
    this.#tracer?.proposes(call, proposal);
    this.#server.replication.propose(proposal);
  }

  /** The same with a promise. */
  request<O extends Op>(call: CallInfo, op: O, request: RequestOf<O>, payload: Uint8Array): Promise<Outcome<O>> {
    const user = this.userOf(call);
    return user instanceof AuthInfo ? this.#server.request(op, request, payload, user) : Promise.resolve(user);
  }

  /** Why the caller lacks the role root; null when the caller has it. */
  refuseAllButRoot(call: CallInfo): EtcdError | null {
    return this.check(call, (user) => this.#server.auth.mayAdminister(user));
  }

  /** A handler for callers with the role root. */
  readonly forRoot = <C extends CallInfo & { fail(code: number, message: string): void }>(
    handler: (call: C) => void,
  ): ((call: C) => void) => {
    return (call) => {
      if (!refused(call, this.refuseAllButRoot(call))) handler(call);
    };
  };

  /** Why the caller is not authenticated; null when it is, or need not be. */
  refuseNobody(call: CallInfo): EtcdError | null {
    return this.check(call, (user) => (user === NOBODY ? "userEmpty" : null));
  }

  /** Why a check of the caller fails; null when it passes. */
  check(call: CallInfo, check: (user: AuthInfo) => AuthProblem | null): EtcdError | null {
    if (!this.#server.auth.enabled) return null;
    const user = this.userOf(call);
    if (!(user instanceof AuthInfo)) return user;
    const problem = check(user);
    return problem === null ? null : errors[problem];
  }

  /** The same for a read served at once: the permissions checked must be of the revision that the read sees. */
  checkRead(call: CallInfo, check: (user: AuthInfo) => AuthProblem | null): EtcdError | null {
    const { auth } = this.#server;
    return this.check(
      call,
      (user) => check(user) ?? (user.revision !== 0 && user.revision !== auth.revision ? "authOldRevision" : null),
    );
  }

  /** checkRead for a check in slices. */
  *checkReadInSlices(call: CallInfo, check: (user: AuthInfo) => Slices<AuthProblem | null>): Slices<EtcdError | null> {
    const { auth } = this.#server;
    if (!auth.enabled) return null;
    const user = this.userOf(call);
    if (!(user instanceof AuthInfo)) return user;
    const problem = yield* check(user);
    if (problem !== null) return errors[problem];
    return user.revision !== 0 && user.revision !== auth.revision ? errors.authOldRevision : null;
  }

  /**
   * In etcd an HTTP client's request would reach the server over its own connection, so that the client's certificate
   * does not count; etcd refuses such requests to avoid that misunderstanding.
   */
  ignoresCertificateOf(socket: RpcSocket): boolean {
    return this.#server.auth.enabled && this.#trustsCertificates && (this.#commonNameOf(socket) ?? "") !== "";
  }

  #userOfCertificate(call: CallInfo): AuthInfo | undefined {
    if (!this.#trustsCertificates || call.isLocal) return undefined;
    const commonName = this.#commonNameOf(call.socket);
    return commonName === null ? undefined : new AuthInfo(commonName, this.#server.auth.revision);
  }

  #commonNameOf(socket: RpcSocket): string | null {
    let commonName = this.#commonNames.get(socket);
    if (commonName === undefined) {
      const certificate =
        "authorized" in socket && socket.authorized ? (socket as TLSSocket).getPeerX509Certificate() : undefined;
      commonName = certificate === undefined ? null : namesOf(certificate).commonName;
      this.#commonNames.set(socket, commonName);
    }
    return commonName;
  }
}

/** The token of a call: `token` in gRPC, `authorization` in HTTP. */
export function tokenOf(call: CallInfo): string | undefined {
  const token = call.header("token") ?? call.header("authorization");
  return token?.startsWith(BEARER) ? token.slice(BEARER.length) : token;
}

const BEARER = "Bearer ";

/** Distinguishes tokens in the log without revealing them. */
const fingerprintOf = (token: string): string => createHash("sha256").update(token).digest("hex").slice(0, 12);

/** Fails a call if there is an error. */
export function refused(call: { fail(code: number, message: string): void }, error: EtcdError | null): boolean {
  if (error !== null) failWith(call, error);
  return error !== null;
}
