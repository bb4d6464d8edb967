import { ProtobufError, Reader } from "../../base/protobuf.ts";
import { compareVersions, minorVersion, parseVersion, type Version } from "../../base/semver.ts";
import { DowngradeVersionTestRequest } from "../../proto/etcdserverpb.ts";
import { type Entry, EntryType } from "../../proto/raftpb.ts";
import { Op } from "../log/op.ts";

/**
 * The lowest etcd version that can read the log after the last snapshot. Everything this version writes is readable by
 * 3.5 and later, except one request: DowngradeVersionTest, with which etcd's tests mark a log as newer. Until a
 * snapshot covers the last of those, the highest version named by one applies. Source: etcd
 * `server/storage/wal/version.go`.
 */
export class LogVersion {
  #version: Version | undefined;
  #lastIndex = 0;

  /** `entries` are those found in the log at a restart. */
  constructor(entries: readonly Entry[]) {
    for (const { index, type, data } of entries) {
      if (type !== EntryType.EntryNormal) continue;
      const marked = markOf(data);
      if (marked !== undefined) this.mark(marked, index);
    }
  }

  /** A DowngradeVersionTest naming `text` is at `index`. */
  mark(text: string, index: number): void {
    const named = parseVersion(text);
    const version = named === undefined || compareVersions(named, FIRST) < 0 ? FIRST : named;
    if (this.#version === undefined || compareVersions(this.#version, version) < 0) this.#version = version;
    this.#lastIndex = Math.max(this.#lastIndex, index);
  }

  /** Undefined when every possible downgrade target can read it. */
  since(snapshotIndex: number): Version | undefined {
    if (this.#lastIndex <= snapshotIndex) this.#version = undefined;
    return this.#version;
  }
}

/** The version that introduced the request itself. */
const FIRST = minorVersion({ major: 3, minor: 6 });

const reader = new Reader();
const TAG = Op.DOWNGRADE_VERSION_TEST * 8 + 2;

/** Reads only field numbers: a log may hold many large requests. */
function markOf(data: Uint8Array): string | undefined {
  reader.reset(data);
  try {
    while (reader.pos < reader.end) {
      const tag = reader.tag();
      if (tag === TAG) return DowngradeVersionTestRequest.decode(reader.bytes()).ver;
      reader.skip(tag);
    }
  } catch (error) {
    // A 3.4 request has another form. Undecodable entries are detected when they are applied.
    if (!(error instanceof ProtobufError)) throw error;
  }
  return undefined;
}
