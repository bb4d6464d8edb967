/** What goes wrong with backups, as one error with a code. The text says what to do. */
import { KvorumError } from "../base/errors.ts";

export type BackupErrorCode =
  /** An object is missing, cut off, foreign, or not what its digest says. */
  | "ERR_BACKUP_DAMAGED"
  /** The repository has nothing that reaches the revision or time. */
  | "ERR_BACKUP_NOT_COVERED"
  /** Another process writes into the same repository. */
  | "ERR_BACKUP_CONFLICT"
  /** The object is not there. */
  | "ERR_BACKUP_NO_OBJECT"
  /** A key is missing, or is not the right one. */
  | "ERR_BACKUP_KEY"
  /** The store refuses, or does not answer. */
  | "ERR_BACKUP_STORE"
  /** The command line or a setting makes no sense. */
  | "ERR_BACKUP_USAGE";

export class BackupError extends KvorumError<BackupErrorCode> {
  override name = "BackupError";
  readonly code: BackupErrorCode;

  constructor(code: BackupErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}

/** For an object of a repository, by its name. */
export const damaged = (object: string, problem: string, options?: ErrorOptions): BackupError =>
  new BackupError("ERR_BACKUP_DAMAGED", `${object} ${problem}`, options);
