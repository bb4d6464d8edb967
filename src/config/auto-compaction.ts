import { ConfigError } from "./errors.ts";
import { type GoValueError, parseGoDuration } from "./values/go-value.ts";

/** How much history automatic compaction keeps; 0 disables it. */
export type AutoCompaction =
  | { readonly mode: "periodic"; readonly retentionMs: number }
  | { readonly mode: "revision"; readonly retentionRevisions: number };

const HOUR_MS = 3_600_000;

/**
 * Reads `--auto-compaction-retention`, whose meaning depends on the mode: a bare number counts hours or revisions;
 * anything else is a duration. Throws `ConfigError` of kind `start`.
 */
export function readAutoCompaction(mode: string, retention: string): AutoCompaction {
  const text = retention === "" ? "0" : retention;
  const count = /^[+]?\d+$/.test(text) ? Number(text) : undefined;
  if (mode === "revision") return { mode, retentionRevisions: count ?? retentionMs(text) * 1e6 };
  return { mode: "periodic", retentionMs: count === undefined ? retentionMs(text) : count * HOUR_MS };
}

function retentionMs(text: string): number {
  try {
    return parseGoDuration(text);
  } catch (error) {
    throw new ConfigError("start", `error parsing CompactionRetention: ${(error as GoValueError).message}`);
  }
}
