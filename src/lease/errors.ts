import { KvorumError } from "../base/errors.ts";

/** Errors of the lessor. The texts are etcd's (server/lease/lessor.go); api/ maps the codes to gRPC errors. */
export type LessorErrorCode =
  | "ERR_LEASE_NOT_FOUND"
  | "ERR_LEASE_EXISTS"
  | "ERR_LEASE_TTL_TOO_LARGE"
  /** Only the leader's lessor renews; ask it. */
  | "ERR_LESSOR_NOT_PRIMARY"
  /** Too many keep-alives wait for the outcome of a revocation; retry later. */
  | "ERR_LESSOR_BUSY";

const texts: Readonly<Record<LessorErrorCode, string>> = {
  ERR_LEASE_NOT_FOUND: "lease not found",
  ERR_LEASE_EXISTS: "lease already exists",
  ERR_LEASE_TTL_TOO_LARGE: "too large lease TTL",
  ERR_LESSOR_NOT_PRIMARY: "not a primary lessor",
  ERR_LESSOR_BUSY: "too many renewals wait for leases that are being revoked",
};

export class LessorError extends KvorumError {
  override name = "LessorError";
  readonly code: LessorErrorCode;

  constructor(code: LessorErrorCode) {
    super(texts[code]);
    this.code = code;
  }
}
