import { RequestHeader } from "../proto/etcdserverpb.ts";

/**
 * The user of a request, and the auth revision at which it was determined. It travels with the request through the log,
 * so that every member decides the same. Made once per user and revision and shared by their requests.
 */
export class AuthInfo {
  readonly username: string;
  /** Revision of the auth store; 0 only for NOBODY. */
  readonly revision: number;
  #fields: Uint8Array | undefined;

  constructor(username: string, revision: number) {
    this.username = username;
    this.revision = revision;
  }

  /** The encoded fields `username` and `auth_revision` of RequestHeader. */
  get headerFields(): Uint8Array {
    this.#fields ??= RequestHeader.encode(
      RequestHeader.create({ username: this.username, authRevision: this.revision }),
    );
    return this.#fields;
  }
}

/** A request without a user. */
export const NOBODY = new AuthInfo("", 0);
