/** `kvorum audit verify`: whether the chain of an audit log is whole. */
import { existsSync } from "node:fs";
import { olderFiles } from "../api/audit/file.ts";
import { AuditError, verifyAudit } from "../api/audit/verify.ts";
import { systemText } from "../base/system-error.ts";

export interface AuditIo {
  readonly out: (text: string) => void;
  readonly err: (text: string) => void;
}

const USAGE = `Usage:
  kvorum audit verify FILE... [--seal HASH]

Checks that nothing in an audit log was changed, left out or put in. With one FILE, the full ones beside it
that belong to it are checked too; several are taken in their order. The hash of the last seal is printed:
keep it elsewhere, and give it with --seal the next time, for who may write the file may also write
all of it again. The server's log has the seal at each start, at each new file and at the end.
`;

/** The exit code: 0 when it is whole, 1 when it is not, 2 for a mistake in the command. */
export async function main(args: readonly string[], { out, err }: AuditIo): Promise<number> {
  const [command, ...rest] = args;
  const at = rest.indexOf("--seal");
  const seal = at < 0 ? undefined : rest[at + 1];
  const files = rest.filter((_, i) => at < 0 || (i !== at && i !== at + 1));
  const isWrong = files.some((file) => file.startsWith("-")) || (at >= 0 && seal === undefined);
  if (command === "--help" || command === "-h" || rest.includes("--help")) {
    out(USAGE);
    return 0;
  }
  if (command !== "verify" || files.length === 0 || isWrong) {
    err(USAGE);
    return 2;
  }
  try {
    return await verify(files, seal, out, err);
  } catch (error) {
    if (error instanceof AuditError) err(`Error: ${error.message}\n`);
    else if (error instanceof Error && "syscall" in error) err(`Error: ${systemText(error)}\n`);
    else throw error;
    return 1;
  }
}

async function verify(
  files: readonly string[],
  expected: string | undefined,
  out: AuditIo["out"],
  err: AuditIo["err"],
): Promise<number> {
  const [only] = files;
  const all = files.length === 1 && existsSync(only!) ? [...olderFiles(only!), only!] : files;
  const seals = new Set<string>();
  const { seal, records, unsealed, isContinued } = await verifyAudit(all, (hash) => void seals.add(hash));
  if (expected !== undefined && !seals.has(expected)) {
    err(`Error: no seal in these files is ${expected}: the log was cut off or written again\n`);
    return 1;
  }
  out(`${all.length} ${all.length === 1 ? "file" : "files"}, ${records} records, nothing was changed\n`);
  if (isContinued) out("the first file continues one that is not here\n");
  if (unsealed > 0) out(`${unsealed} lines behind the last seal are not sealed yet: the server writes, or was ended\n`);
  out(`last seal: ${seal.hash} after ${seal.records} records\n`);
  return 0;
}
