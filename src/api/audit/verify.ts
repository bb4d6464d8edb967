/** Checks the chain of audit files, one after the other. Reads them line by line, so that their size does not matter. */
import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { KvorumError } from "../../base/errors.ts";
import { NO_SEAL, readHead, readSeal, type Seal } from "./chain.ts";

export interface Verified {
  readonly files: number;
  readonly records: number;
  readonly seal: Seal;
  /** Lines behind the last seal, of a server that ended while it wrote. */
  readonly unsealed: number;
  /** What the first file continues from is not among the files. */
  readonly isContinued: boolean;
}

/** What is wrong, in a sentence that names file and line. */
export class AuditError extends KvorumError {
  override name = "AuditError";
  readonly code = "ERR_AUDIT";
}

/** `onSeal` gets each hash. Throws AuditError for the first break of the chain; what the file system says. */
export async function verifyAudit(
  paths: readonly string[],
  onSeal: (hash: string) => void = () => {},
): Promise<Verified> {
  let seal: Seal | undefined;
  let isContinued = false;
  let records = 0;
  let unsealed = 0;
  for (const path of paths) {
    const checked = await verifyFile(path, seal, unsealed, onSeal);
    if (seal === undefined) isContinued = checked.first.hash !== NO_SEAL;
    ({ seal, unsealed } = checked);
    records += checked.records;
  }
  return { files: paths.length, records, seal: seal ?? { hash: NO_SEAL, records: 0 }, unsealed, isContinued };
}

async function verifyFile(
  path: string,
  before: Seal | undefined,
  unsealedBefore: number,
  onSeal: (hash: string) => void,
) {
  if (unsealedBefore > 0) throw new AuditError(`${path}: the file before it does not end with a seal`);
  let first: Seal | undefined;
  let seal: Seal | undefined;
  let hash = createHash("sha256");
  let [number, records, unsealed] = [0, 0, 0];
  for await (const bytes of lines(path)) {
    number++;
    const line = bytes.toString("utf8", 0, bytes.length - 1);
    if (first === undefined) {
      first = readHead(line);
      if (first === undefined) throw new AuditError(`${path}:1: this is not the beginning of an audit file`);
      if (before !== undefined && before.hash !== first.hash) {
        throw new AuditError(`${path}:1: it does not continue the file before: a file is missing, or was changed`);
      }
      seal = first;
      hash.update(first.hash, "latin1").update(bytes);
      continue;
    }
    const found = readSeal(line);
    if (found === undefined) {
      hash.update(bytes);
      unsealed++;
      continue;
    }
    if (hash.digest("hex") !== found.hash) {
      throw new AuditError(
        `${path}:${number}: the seal does not fit the ${unsealed} lines before it: they were changed`,
      );
    }
    seal = found;
    onSeal(found.hash);
    records += unsealed;
    unsealed = 0;
    hash = createHash("sha256").update(found.hash, "latin1");
  }
  if (first === undefined || seal === undefined) throw new AuditError(`${path}: the file is empty`);
  return { first, seal, records, unsealed };
}

/** With their ends. */
async function* lines(path: string): AsyncGenerator<Buffer> {
  let rest: Buffer = Buffer.alloc(0);
  const pieces: AsyncIterable<Buffer> = createReadStream(path, { highWaterMark: 256 * 1024 });
  for await (const piece of pieces) {
    const bytes = rest.length > 0 ? Buffer.concat([rest, piece]) : piece;
    let start = 0;
    for (let end = bytes.indexOf(0x0a); end >= 0; end = bytes.indexOf(0x0a, start)) {
      yield bytes.subarray(start, end + 1);
      start = end + 1;
    }
    rest = bytes.subarray(start);
    if (rest.length > LINE_BYTES_MAX) throw new AuditError(`${path}: a line has more than ${LINE_BYTES_MAX} bytes`);
  }
  if (rest.length > 0) yield Buffer.concat([rest, Buffer.from("\n")]);
}

const LINE_BYTES_MAX = 64 * 1024 * 1024;
