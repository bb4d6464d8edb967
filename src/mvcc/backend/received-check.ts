/**
 * Checks a received file before it may become a member's database: all of its pages, and the form of its keys. A bbolt
 * file has checksums only for its meta pages.
 */
import type { Disk } from "../../base/disk.ts";
import { startThread } from "../../base/start-thread.ts";
import { checkBoltInSlices } from "../../bolt/check.ts";
import { countOf, elementAt, leafKeyBytes, leafKeyStart } from "../../bolt/raw-page.ts";
import { BoltReader } from "../../bolt/reader.ts";
import { isRevision } from "../model/revision.ts";
import { metaKeys } from "./backend.ts";

const PROBLEMS_MAX = 3;

/** For the thread, and from it. */
export interface ReceivedData {
  readonly path: string;
}

export interface ReceivedResult {
  readonly problem?: string | undefined;
  /** The file could not be read. */
  readonly error?: string;
}

/** Resolves to what is wrong with the file, if anything; awaits `turn` between slices. Rejects with node's errors. */
export async function problemOfReceived(
  disk: Disk,
  path: string,
  turn: () => Promise<void>,
): Promise<string | undefined> {
  const reader = new BoltReader({ disk, path });
  try {
    const problems = await checkBoltInSlices(reader, turn, PROBLEMS_MAX, checkKeys);
    if (problems.length > 0) return `${path} is damaged: ${problems.join("; ")}`;
    if (reader.bucket(Buffer.from("meta"))?.get(metaKeys.consistentIndex) === undefined) {
      return `${path} is no database of etcd 3.5 or later: it does not say which entry of the log is its last`;
    }
    return undefined;
  } finally {
    reader.close();
  }
}

function checkKeys(bucket: string, bytes: Buffer, at: number): string | undefined {
  if (bucket !== "key") return undefined;
  const count = countOf(bytes, at);
  for (let i = 0; i < count; i++) {
    const element = elementAt(at, i);
    const start = leafKeyStart(bytes, element);
    const length = leafKeyBytes(bytes, element);
    if (!isRevision(bytes, start, start + length)) {
      return `has a key of ${length} bytes in the bucket of the revisions`;
    }
  }
  return undefined;
}

/** The same on a thread of its own, which ends with it. */
export function problemOfReceivedOnThread(path: string): Promise<string | undefined> {
  const workerData: ReceivedData = { path };
  const thread = startThread({
    from: import.meta.url,
    source: "./received-thread.ts",
    built: "received-thread.js",
    name: "check of a received database",
    workerData,
  });
  return new Promise((resolve, reject) => {
    thread.once("message", ({ problem, error }: ReceivedResult) => {
      if (error === undefined) resolve(problem);
      else reject(new Error(error));
    });
    thread.once("error", reject);
    thread.once("exit", () => reject(new Error(`the thread that checks ${path} has ended`)));
  });
}
