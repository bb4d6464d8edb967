/** Passes errors between threads, which only transfer their texts automatically. */
import { BoltError, type BoltErrorCode } from "./format.ts";

export interface CarriedError {
  readonly name: string;
  readonly message: string;
  /** From a BoltError or a system error. */
  readonly code: string | undefined;
  readonly file: string | undefined;
  readonly page: number | undefined;
  readonly stack: string | undefined;
}

export function carryError(error: unknown): CarriedError {
  const { name, message, code, file, page, stack } = error as Error & Partial<CarriedError>;
  return { name, message, code, file, page, stack };
}

export function arrivedError(carried: CarriedError): Error {
  if (carried.name === "BoltError") {
    const prefix = carried.page === undefined ? `${carried.file}: ` : `${carried.file}: page ${carried.page}: `;
    const problem = carried.message.startsWith(prefix) ? carried.message.slice(prefix.length) : carried.message;
    return new BoltError(carried.code as BoltErrorCode, carried.file ?? "", carried.page, problem);
  }
  const error = new Error(carried.message, { cause: carried.stack });
  return carried.code === undefined ? error : Object.assign(error, { code: carried.code });
}
