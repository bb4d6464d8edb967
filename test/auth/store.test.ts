import assert from "node:assert/strict";
import { beforeEach, describe, test } from "node:test";
import { AuthInfo, NOBODY } from "../../src/auth/auth-info.ts";
import { BcryptHasher } from "../../src/auth/passwords.ts";
import { AuthStore } from "../../src/auth/store.ts";
import { createTokenProvider } from "../../src/auth/tokens.ts";
import { systemDisk } from "../../src/base/disk.ts";
import { systemRandom } from "../../src/base/random.ts";
import { Permission_Type as PermissionType, User } from "../../src/proto/authpb.ts";
import {
  AuthRoleGrantPermissionRequest,
  AuthUserAddRequest,
  AuthUserChangePasswordRequest,
} from "../../src/proto/etcdserverpb.ts";
import { MemoryLogger } from "../harness/in-process.ts";
import { MemoryBackend } from "../harness/memory-backend.ts";
import { VirtualClock } from "../harness/virtual-clock.ts";

const bytes = (text: string): Buffer => Buffer.from(text, "latin1");
const { READ, WRITE, READWRITE } = PermissionType;

let clock: VirtualClock;
let backend: MemoryBackend;
let auth: AuthStore;

function open(spec = "simple"): AuthStore {
  const logger = new MemoryLogger();
  return new AuthStore({
    backend,
    logger,
    tokens: createTokenProvider({ spec, simpleTtlMs: 10_000, clock, random: systemRandom, disk: systemDisk, logger }),
    passwords: new BcryptHasher(4, systemRandom),
  });
}

const add = (name: string, password = "secret"): unknown =>
  auth.userAdd(
    AuthUserAddRequest.create({ name, hashedPassword: bytes(auth.passwords.hashNow(password)).toString("base64") }),
  );
const grant = (user: string, role: string): unknown => auth.userGrantRole({ user, role });
const permit = (name: string, permType: PermissionType, key: string, rangeEnd = ""): unknown =>
  auth.roleGrantPermission(
    AuthRoleGrantPermissionRequest.create({ name, perm: { permType, key: bytes(key), rangeEnd: bytes(rangeEnd) } }),
  );
const as = (name: string): AuthInfo => new AuthInfo(name, auth.revision);

function enable(): void {
  assert.equal(add("root"), null);
  assert.equal(grant("root", "root"), null);
  assert.equal(auth.authEnable(), null);
}

beforeEach(() => {
  clock = new VirtualClock();
  backend = new MemoryBackend({ clock });
  auth = open();
});

describe("enabling authentication", () => {
  test("needs a user root that has the role root", () => {
    assert.equal(auth.authEnable(), "rootUserNotExist");
    add("root");
    assert.equal(auth.authEnable(), "rootRoleNotExist");
    grant("root", "root");
    assert.equal(auth.authEnable(), null);
    assert.equal(auth.enabled, true);
  });

  test("protects root while it is enabled", () => {
    enable();
    auth.roleAdd({ name: "root" });
    assert.equal(auth.userDelete({ name: "root" }), "invalidAuthMgmt");
    assert.equal(auth.userRevokeRole({ name: "root", role: "root" }), "invalidAuthMgmt");
    assert.equal(auth.roleDelete({ role: "root" }), "invalidAuthMgmt");
    auth.authDisable();
    assert.equal(auth.roleDelete({ role: "root" }), null);
    assert.deepEqual(auth.userGet("root"), []);
  });

  test("increments the revision when it is disabled, not when it is enabled", () => {
    assert.equal(auth.revision, 1);
    enable();
    assert.equal(auth.revision, 3);
    auth.authDisable();
    assert.equal(auth.revision, 4);
    auth.authDisable();
    assert.equal(auth.revision, 4);
  });
});

describe("users and roles", () => {
  test("are refused when they exist, when they do not, and without a name", () => {
    assert.equal(add(""), "userEmpty");
    add("anna");
    assert.equal(add("anna"), "userAlreadyExists");
    assert.equal(grant("bob", "r"), "userNotFound");
    assert.equal(grant("anna", "r"), "roleNotFound");
    assert.equal(auth.roleAdd({ name: "" }), "roleEmpty");
    auth.roleAdd({ name: "r" });
    assert.equal(auth.roleAdd({ name: "r" }), "roleAlreadyExists");
    assert.equal(auth.userRevokeRole({ name: "anna", role: "r" }), "roleNotGranted");
    assert.equal(auth.userDelete({ name: "bob" }), "userNotFound");
    assert.equal(auth.roleDelete({ role: "x" }), "roleNotFound");
    assert.equal(
      auth.roleRevokePermission({ role: "r", key: bytes("a"), rangeEnd: bytes("") }),
      "permissionNotGranted",
    );
    assert.equal(auth.roleGrantPermission({ name: "r", perm: undefined }), "permissionNotGiven");
  });

  test("granting a role twice changes nothing, not even the revision", () => {
    add("anna");
    auth.roleAdd({ name: "r" });
    grant("anna", "r");
    const { revision } = auth;
    assert.equal(grant("anna", "r"), null);
    assert.equal(auth.revision, revision);
  });

  test("a deleted role is removed from every user", () => {
    for (const name of ["anna", "bob"]) add(name);
    for (const name of ["z", "r"]) auth.roleAdd({ name });
    grant("anna", "z");
    grant("anna", "r");
    grant("bob", "r");
    assert.deepEqual(auth.userGet("anna"), ["r", "z"]);
    auth.roleDelete({ role: "r" });
    assert.deepEqual(auth.userGet("anna"), ["z"]);
    assert.deepEqual(auth.userGet("bob"), []);
    assert.deepEqual(auth.roleList(), ["z"]);
    assert.deepEqual(auth.userList(), ["anna", "bob"]);
  });

  test("a permission for the same range is replaced, others stay in key order", () => {
    auth.roleAdd({ name: "r" });
    permit("r", READ, "b");
    permit("r", READ, "a", "c");
    permit("r", WRITE, "b");
    const shown = auth.roleGet("r")!.map((one) => `${one.permType}${one.key}-${one.rangeEnd}`);
    assert.deepEqual(shown, [`${READ}a-c`, `${WRITE}b-`]);
    assert.equal(permit("r", READ, "c", "b"), "invalidAuthMgmt");
    assert.equal(permit("r", READ, "", "b"), "invalidAuthMgmt");
    assert.equal(permit("r", READ, "c", "\0"), null);
  });

  test("are the same after a restart", () => {
    enable();
    add("anna");
    auth.roleAdd({ name: "r" });
    permit("r", READ, "a");
    grant("anna", "r");
    const { revision } = auth;
    auth.close();
    auth = open();
    assert.equal(auth.enabled, true);
    assert.equal(auth.revision, revision);
    assert.deepEqual(auth.userList(), ["anna", "root"]);
    assert.equal(auth.mayRead(as("anna"), "a", ""), null);
    assert.equal(auth.mayRead(as("anna"), "b", ""), "permissionDenied");
  });

  test("come from another database when a snapshot brings one", () => {
    enable();
    add("anna");
    auth.recover(new MemoryBackend({ clock }));
    assert.equal(auth.enabled, false);
    assert.deepEqual(auth.userList(), []);
  });
});

describe("permissions", () => {
  beforeEach(() => {
    enable();
    add("anna");
    for (const name of ["reader", "writer"]) auth.roleAdd({ name });
    permit("reader", READ, "a", "m");
    permit("writer", WRITE, "c");
    permit("writer", READWRITE, "m", "\0");
    grant("anna", "reader");
    grant("anna", "writer");
  });

  test("are those of all roles together", () => {
    const anna = as("anna");
    assert.equal(auth.mayRead(anna, "b", ""), null);
    assert.equal(auth.mayWrite(anna, "b", ""), "permissionDenied");
    assert.equal(auth.mayWrite(anna, "c", ""), null);
    assert.equal(auth.mayWrite(anna, "c", "d"), "permissionDenied");
    assert.equal(auth.mayRead(anna, "a", "\0"), null);
    assert.equal(auth.mayRead(anna, "A", "\0"), "permissionDenied");
    assert.equal(auth.mayWrite(anna, "n", "\0"), null);
  });

  test("root may do everything, a request without a user nothing", () => {
    assert.equal(auth.mayWrite(as("root"), "\0", "\0"), null);
    assert.equal(auth.mayRead(NOBODY, "a", ""), "userEmpty");
    assert.equal(auth.mayAdminister(NOBODY), "userEmpty");
    assert.equal(auth.mayAdminister(as("anna")), "permissionDenied");
    assert.equal(auth.mayAdminister(as("ghost")), "userNotFound");
    assert.equal(auth.mayRead(as("ghost"), "a", ""), "permissionDenied");
  });

  test("of an older revision are invalid", () => {
    const anna = as("anna");
    auth.roleAdd({ name: "more" });
    assert.equal(auth.mayRead(anna, "b", ""), "authOldRevision");
  });

  test("change with the roles", () => {
    auth.roleRevokePermission({ role: "reader", key: bytes("a"), rangeEnd: bytes("m") });
    assert.equal(auth.mayRead(as("anna"), "b", ""), "permissionDenied");
    auth.userRevokeRole({ name: "anna", role: "writer" });
    assert.equal(auth.mayWrite(as("anna"), "c", ""), "permissionDenied");
  });

  test("are not checked while authentication is disabled", () => {
    auth.authDisable();
    assert.equal(auth.mayWrite(NOBODY, "a", ""), null);
    assert.equal(auth.mayAdminister(NOBODY), null);
  });
});

describe("passwords", () => {
  test("are hashed in Go's notation with the configured cost", async () => {
    const { hash } = (await auth.passwords.hash("secret")) as { hash: string };
    assert.match(hash, /^\$2a\$04\$.{53}$/);
    assert.equal(await auth.passwords.matches("secret", bytes(hash)), true);
    assert.equal(await auth.passwords.matches("wrong", bytes(hash)), false);
    assert.equal(await auth.passwords.matches("secret", bytes("")), false);
    assert.equal(await auth.passwords.hash("x".repeat(73)), "passwordTooLong");
  });

  test("left in the log by a member before etcd 3.5 are hashed when they are applied", async () => {
    enable();
    assert.equal(auth.userAdd(AuthUserAddRequest.create({ name: "old", password: "clear" })), null);
    const stored = auth.passwordOf("old") as { hash: Uint8Array };
    assert.equal(await auth.passwords.matches("clear", stored.hash), true);
  });

  test("that are not base64 are refused, and a user without one cannot log in", () => {
    enable();
    assert.equal(auth.userAdd(AuthUserAddRequest.create({ name: "a", hashedPassword: "%" })), "noPasswordUser");
    auth.userAdd(AuthUserAddRequest.create({ name: "b", options: { noPassword: true } }));
    assert.equal(auth.passwordOf("b"), "noPasswordUser");
    assert.equal(auth.passwordOf("nobody"), "authFailed");
    assert.equal(auth.authenticate("b", "x", 1), "authFailed");
  });

  test("are stored as etcd stores them", () => {
    auth.userAdd(AuthUserAddRequest.create({ name: "b", hashedPassword: "YWI=" }));
    const stored = backend.get("authUsers", bytes("b"))!;
    assert.equal(Buffer.from(stored).toString("hex"), "0a0162" + "12026162" + "2200");
    assert.equal(User.decode(stored).options?.noPassword, false);
    assert.equal(Buffer.from(backend.get("auth", bytes("authRevision"))!).toString("hex"), "0000000000000002");
    enable();
    assert.deepEqual([...backend.get("auth", bytes("authEnabled"))!], [1]);
  });

  test("that change invalidate the user's tokens", () => {
    enable();
    add("anna");
    const { token } = auth.authenticate("anna", "p", 5) as { token: string };
    assert.equal(auth.infoOf(token)?.username, "anna");
    auth.userChangePassword(AuthUserChangePasswordRequest.create({ name: "anna", hashedPassword: "YWI=" }));
    assert.equal(auth.infoOf(token), undefined);
  });
});
