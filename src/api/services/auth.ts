import { Complaints } from "../../base/complaints.ts";
import type { Codec } from "../../base/protobuf.ts";
import { KEY_LENGTH_MAX } from "../../mvcc/backend/backend.ts";
import {
  AuthDisableRequest,
  AuthDisableResponse,
  AuthEnableRequest,
  AuthEnableResponse,
  AuthenticateRequest,
  AuthenticateResponse,
  AuthRoleAddRequest,
  AuthRoleAddResponse,
  AuthRoleDeleteRequest,
  AuthRoleDeleteResponse,
  AuthRoleGetRequest,
  AuthRoleGetResponse,
  AuthRoleGrantPermissionRequest,
  AuthRoleGrantPermissionResponse,
  AuthRoleListRequest,
  AuthRoleListResponse,
  AuthRoleRevokePermissionRequest,
  AuthRoleRevokePermissionResponse,
  AuthService,
  AuthStatusRequest,
  AuthStatusResponse,
  AuthUserAddRequest,
  AuthUserAddResponse,
  AuthUserChangePasswordRequest,
  AuthUserChangePasswordResponse,
  AuthUserDeleteRequest,
  AuthUserDeleteResponse,
  AuthUserGetRequest,
  AuthUserGetResponse,
  AuthUserGrantRoleRequest,
  AuthUserGrantRoleResponse,
  AuthUserListRequest,
  AuthUserListResponse,
  AuthUserRevokeRoleRequest,
  AuthUserRevokeRoleResponse,
  InternalAuthenticateRequest,
} from "../../proto/etcdserverpb.ts";
import type { RpcRegistry, UnaryCall } from "../../rpc/contract.ts";
import { EtcdError, errors } from "../../server/contract/errors.ts";
import { Op } from "../../server/log/op.ts";
import type { RequestOf, ResponseOf } from "../../server/log/operations.ts";
import { readIndex } from "../../server/log/read-queue.ts";
import type { EtcdServer } from "../../server/server.ts";
import { type Access, refused } from "../calls/access.ts";
import { decodeRequest, failWith, settle } from "../calls/calls.ts";
import type { HeaderWriter } from "../calls/header.ts";

/** Characters of an unknown user name in the log. */
const NAME_LOGGED_MAX = 256;

/** Operations that change users and roles: their responses are a header. */
type AuthChange =
  | typeof Op.AUTH_ENABLE
  | typeof Op.AUTH_DISABLE
  | typeof Op.AUTH_USER_ADD
  | typeof Op.AUTH_USER_DELETE
  | typeof Op.AUTH_USER_CHANGE_PASSWORD
  | typeof Op.AUTH_USER_GRANT_ROLE
  | typeof Op.AUTH_USER_REVOKE_ROLE
  | typeof Op.AUTH_ROLE_ADD
  | typeof Op.AUTH_ROLE_DELETE
  | typeof Op.AUTH_ROLE_GRANT_PERMISSION
  | typeof Op.AUTH_ROLE_REVOKE_PERMISSION;

/**
 * The service Auth. Changes go through the log and are checked when applied; queries are answered from an up-to-date
 * state, without a log entry. Passwords are hashed, and compared, before anything is proposed, so that none is ever
 * stored. Source: etcd `server/etcdserver/api/v3rpc/auth.go` and `v3_server.go`.
 */
export class AuthApi {
  readonly #server: EtcdServer;
  readonly #header: HeaderWriter;
  readonly #access: Access;
  readonly #complaints: Complaints;

  constructor(server: EtcdServer, header: HeaderWriter, access: Access) {
    this.#server = server;
    this.#header = header;
    this.#access = access;
    this.#complaints = new Complaints(server.options.logger, server.options.clock);
  }

  register(rpc: RpcRegistry): void {
    const { AuthEnable, AuthDisable, AuthStatus, Authenticate } = AuthService;
    this.#change(rpc, AuthEnable.path, Op.AUTH_ENABLE, AuthEnableRequest, AuthEnableResponse);
    this.#change(rpc, AuthDisable.path, Op.AUTH_DISABLE, AuthDisableRequest, AuthDisableResponse);
    rpc.unary(AuthStatus.path, (call) => this.#status(call));
    rpc.unary(Authenticate.path, (call) => settle(call, this.#authenticate(call)));
    this.#registerUsers(rpc);
    this.#registerRoles(rpc);
  }

  #registerUsers(rpc: RpcRegistry): void {
    const { UserAdd, UserGet, UserList, UserDelete, UserChangePassword, UserGrantRole, UserRevokeRole } = AuthService;
    rpc.unary(UserAdd.path, (call) => settle(call, this.#userAdd(call)));
    rpc.unary(UserGet.path, (call) => this.#userGet(call));
    rpc.unary(UserList.path, (call) => this.#userList(call));
    this.#change(rpc, UserDelete.path, Op.AUTH_USER_DELETE, AuthUserDeleteRequest, AuthUserDeleteResponse);
    rpc.unary(UserChangePassword.path, (call) => settle(call, this.#userChangePassword(call)));
    this.#change(rpc, UserGrantRole.path, Op.AUTH_USER_GRANT_ROLE, AuthUserGrantRoleRequest, AuthUserGrantRoleResponse);
    this.#change(
      rpc,
      UserRevokeRole.path,
      Op.AUTH_USER_REVOKE_ROLE,
      AuthUserRevokeRoleRequest,
      AuthUserRevokeRoleResponse,
    );
  }

  #registerRoles(rpc: RpcRegistry): void {
    const { RoleAdd, RoleGet, RoleList, RoleDelete, RoleGrantPermission, RoleRevokePermission } = AuthService;
    rpc.unary(RoleAdd.path, (call) => {
      const request = decodeRequest(call, AuthRoleAddRequest);
      if (request === undefined || refused(call, refusalOfName(request.name))) return;
      settle(call, this.#propose(call, Op.AUTH_ROLE_ADD, request, call.message, AuthRoleAddResponse));
    });
    rpc.unary(RoleGet.path, (call) => this.#roleGet(call));
    rpc.unary(RoleList.path, (call) => this.#roleList(call));
    this.#change(rpc, RoleDelete.path, Op.AUTH_ROLE_DELETE, AuthRoleDeleteRequest, AuthRoleDeleteResponse);
    this.#change(
      rpc,
      RoleGrantPermission.path,
      Op.AUTH_ROLE_GRANT_PERMISSION,
      AuthRoleGrantPermissionRequest,
      AuthRoleGrantPermissionResponse,
    );
    this.#change(
      rpc,
      RoleRevokePermission.path,
      Op.AUTH_ROLE_REVOKE_PERMISSION,
      AuthRoleRevokePermissionRequest,
      AuthRoleRevokePermissionResponse,
    );
  }

  /** Proposes a request unchanged. */
  #change<O extends AuthChange>(
    rpc: RpcRegistry,
    path: string,
    op: O,
    requestCodec: Codec<RequestOf<O>>,
    responseCodec: Codec<ResponseOf<O>>,
  ): void {
    rpc.unary(path, (call) => {
      const request = decodeRequest(call, requestCodec);
      if (request !== undefined) settle(call, this.#propose(call, op, request, call.message, responseCodec));
    });
  }

  async #propose<O extends AuthChange>(
    call: UnaryCall,
    op: O,
    request: RequestOf<O>,
    payload: Uint8Array,
    codec: Codec<ResponseOf<O>>,
  ): Promise<void> {
    const outcome = await this.#access.request(call, op, request, payload);
    if (outcome instanceof EtcdError) failWith(call, outcome);
    else {
      outcome.header = this.#header.create();
      call.respond(codec.encode(outcome));
    }
  }

  /** Answers from an up-to-date state. */
  #ask(call: UnaryCall, answer: () => Uint8Array | EtcdError): void {
    this.#server.replication.read({
      serve: (error) => {
        const user = this.#access.userOf(call);
        const found = error ?? (user instanceof EtcdError ? user : answer());
        if (found instanceof EtcdError) failWith(call, found);
        else call.respond(found);
      },
      failed: (error) => call.crashed(error),
    });
  }

  #status(call: UnaryCall): void {
    if (decodeRequest(call, AuthStatusRequest) === undefined) return;
    this.#ask(call, () => {
      const { enabled, revision: authRevision } = this.#server.auth;
      return AuthStatusResponse.encode(
        AuthStatusResponse.create({ header: this.#header.create(), enabled, authRevision }),
      );
    });
  }

  /** A change of users or roles during the comparison may have changed the password: then it is compared again. */
  async #authenticate(call: UnaryCall): Promise<void> {
    const request = decodeRequest(call, AuthenticateRequest);
    if (request === undefined) return;
    const server = this.#server;
    const { auth } = server;
    if (refused(call, await readIndex(server.replication))) return;
    while (!call.cancelled) {
      const checked = await this.#checkPassword(request, call);
      if (checked instanceof EtcdError) {
        failWith(call, checked);
        return;
      }
      const internal = InternalAuthenticateRequest.create({
        name: request.name,
        simpleToken: auth.tokens.newPrefix(),
      });
      const payload = InternalAuthenticateRequest.encode(internal);
      const outcome = await server.request(Op.AUTHENTICATE, internal, payload);
      if (outcome instanceof EtcdError) {
        failWith(call, outcome);
        return;
      }
      if (checked === auth.revision) {
        outcome.header = this.#header.create();
        call.respond(AuthenticateResponse.encode(outcome));
        return;
      }
      server.options.logger.info("revision when password checked became stale; retrying");
    }
  }

  /** The auth revision at which the password was the user's. */
  async #checkPassword({ name, password }: AuthenticateRequest, call: UnaryCall): Promise<number | EtcdError> {
    const { auth } = this.#server;
    const stored = auth.passwordOf(name);
    if (typeof stored === "string") {
      if (stored !== "authNotEnabled") {
        const error = errors[stored].message;
        this.#complaints.warn("invalid authentication was requested", { user: name.slice(0, NAME_LOGGED_MAX), error });
      }
      return errors[stored];
    }
    const matches = await auth.passwords.matches(password, stored.hash, call);
    if (matches === "tooManyRequests") return errors.tooManyRequests;
    if (matches) return stored.revision;
    this.#complaints.warn("invalid password", { "user-name": name, "remote-addr": call.remoteAddress });
    return errors.authFailed;
  }

  async #userAdd(call: UnaryCall): Promise<void> {
    const request = decodeRequest(call, AuthUserAddRequest);
    if (request === undefined || refused(call, refusalOfName(request.name))) return;
    // Only callers that may add users get hashing.
    if (refused(call, this.#access.refuseAllButRoot(call))) return;
    if (request.options?.noPassword !== true && !(await this.#hash(call, request))) return;
    await this.#propose(call, Op.AUTH_USER_ADD, request, AuthUserAddRequest.encode(request), AuthUserAddResponse);
  }

  async #userChangePassword(call: UnaryCall): Promise<void> {
    const request = decodeRequest(call, AuthUserChangePasswordRequest);
    if (request === undefined || refused(call, this.#access.refuseAllButRoot(call))) return;
    if (request.password !== "" && !(await this.#hash(call, request))) return;
    const payload = AuthUserChangePasswordRequest.encode(request);
    await this.#propose(call, Op.AUTH_USER_CHANGE_PASSWORD, request, payload, AuthUserChangePasswordResponse);
  }

  /** Replaces the password by its hash; false when the call was answered with an error. */
  async #hash(call: UnaryCall, request: { password: string; hashedPassword: string }): Promise<boolean> {
    const hashed = await this.#server.auth.passwords.hash(request.password, call);
    if (call.cancelled) return false;
    if (typeof hashed === "string") {
      failWith(call, errors[hashed]);
      return false;
    }
    request.password = "";
    request.hashedPassword = Buffer.from(hashed.hash).toString("base64");
    return true;
  }

  /** Users may read their own roles. */
  #userGet(call: UnaryCall): void {
    const request = decodeRequest(call, AuthUserGetRequest);
    if (request === undefined) return;
    const { auth } = this.#server;
    this.#ask(call, () => {
      const refusal = this.#access.check(call, (user) =>
        user.username === request.name ? null : auth.mayAdminister(user),
      );
      const roles = auth.userGet(request.name);
      if (refusal !== null || roles === undefined) return refusal ?? errors.userNotFound;
      return AuthUserGetResponse.encode(
        AuthUserGetResponse.create({ header: this.#header.create(), roles: [...roles] }),
      );
    });
  }

  #userList(call: UnaryCall): void {
    if (decodeRequest(call, AuthUserListRequest) === undefined) return;
    this.#ask(call, () => {
      const users = this.#server.auth.userList();
      const response = AuthUserListResponse.create({ header: this.#header.create(), users });
      return this.#access.refuseAllButRoot(call) ?? AuthUserListResponse.encode(response);
    });
  }

  /** Users may read the roles that they have. */
  #roleGet(call: UnaryCall): void {
    const request = decodeRequest(call, AuthRoleGetRequest);
    if (request === undefined) return;
    const { auth } = this.#server;
    this.#ask(call, () => {
      const refusal = this.#access.check(call, (user) => {
        const problem = auth.mayAdminister(user);
        return problem === null || auth.hasRole(user.username, request.role) ? null : problem;
      });
      const perm = auth.roleGet(request.role);
      if (refusal !== null || perm === undefined) return refusal ?? errors.roleNotFound;
      return AuthRoleGetResponse.encode(AuthRoleGetResponse.create({ header: this.#header.create(), perm: [...perm] }));
    });
  }

  #roleList(call: UnaryCall): void {
    if (decodeRequest(call, AuthRoleListRequest) === undefined) return;
    this.#ask(call, () => {
      const roles = this.#server.auth.roleList();
      const response = AuthRoleListResponse.create({ header: this.#header.create(), roles });
      return this.#access.refuseAllButRoot(call) ?? AuthRoleListResponse.encode(response);
    });
  }
}

/** A name is a key of the database, whose length is limited. */
function refusalOfName(name: string): EtcdError | null {
  return Buffer.byteLength(name) > KEY_LENGTH_MAX ? errors.requestTooLarge : null;
}
