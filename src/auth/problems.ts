import { KvorumError } from "../base/errors.ts";

/**
 * Why authentication or authorisation refuses, by name. `server/contract/errors.ts` has an entry of the same name for
 * each, with etcd's code and text. Values, not exceptions: a refusal is a normal answer, the same on every member.
 */
export type AuthProblem =
  | "rootUserNotExist"
  | "rootRoleNotExist"
  | "userAlreadyExists"
  | "userEmpty"
  | "userNotFound"
  | "roleAlreadyExists"
  | "roleNotFound"
  | "roleEmpty"
  | "authFailed"
  | "noPasswordUser"
  | "passwordTooLong"
  | "permissionNotGiven"
  | "permissionDenied"
  | "roleNotGranted"
  | "permissionNotGranted"
  | "authNotEnabled"
  | "authOldRevision"
  | "invalidAuthToken"
  | "invalidAuthMgmt"
  | "verifyOnlyKey"
  | "invalidSigningKey"
  | "requestTooLarge"
  | "tooManyRequests";

/** `--auth-token` is invalid: the member does not start. Texts are etcd's. */
export class AuthOptionsError extends KvorumError {
  override name = "AuthOptionsError";
  readonly code = "ERR_AUTH_OPTIONS";
}
