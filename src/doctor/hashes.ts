/** Compares members' hashes of their history (HashKV) at one revision. Pure. */
import type { HashKVResponse } from "../proto/etcdserverpb.ts";
import type { Finding } from "./finding.ts";
import { nameOf, type Patient } from "./membership.ts";

/** @param answers by member: the hash, or why there is none */
export function judgeHashes(
  voters: readonly Patient[],
  answers: readonly (HashKVResponse | string)[],
  revision: number,
): Finding {
  const subject = "hashes";
  const failed = answers.flatMap((answer, i) =>
    typeof answer === "string" ? [`${nameOf(voters[i]!)}: ${answer}`] : [],
  );
  if (failed.length > 0) {
    const text = `they were not compared: ${failed.join("; ")}`;
    const next = ["etcdctl endpoint hashkv --cluster, as root when users are in force"];
    return { severity: "note", code: "hashes-unknown", subject, text, next };
  }
  const hashes = answers.filter((answer) => typeof answer !== "string");
  if (new Set(hashes.map(({ compactRevision }) => compactRevision)).size > 1) {
    const text = "a compaction is going on, so that they cannot be compared";
    return { severity: "note", code: "hashes-unknown", subject, text, next: ["run the doctor again"] };
  }
  const groups = new Map<number, Patient[]>();
  hashes.forEach(({ hash }, i) => {
    groups.set(hash, [...(groups.get(hash) ?? []), voters[i]!]);
  });
  if (groups.size === 1) {
    const text = `all ${voters.length} have the same history up to revision ${revision} (hash ${hashes[0]!.hash})`;
    return { severity: "ok", code: "hashes", subject, text };
  }
  const ordered = [...groups].sort(([, a], [, b]) => b.length - a.length);
  const list = ordered.map(([hash, members]) => `${hash} on ${members.map(nameOf).join(", ")}`).join("; ");
  const hasMajority = ordered[0]![1].length > voters.length / 2;
  const wrong = ordered.slice(1).flatMap(([, members]) => members);
  return {
    severity: "problem",
    code: "hashes-differ",
    subject,
    text: `the members' histories up to revision ${revision} differ: ${list}`,
    lost: hasMajority ? "nothing, while the majority agrees" : "unknown: no majority agrees on what the data is",
    next: hasMajority
      ? [
          `replace ${wrong.map(nameOf).join(", ")}, one after the other: etcdctl member remove, move the directory away, etcdctl member add (docs/recovery.md, A quorum survives)`,
        ]
      : [
          "stop writing, and save a snapshot of each member: etcdctl snapshot save, --endpoints naming one",
          'compare them (etcdutl analyze, etcdctl get --prefix "" on each), and make a cluster of the right one: etcdutl snapshot restore',
        ],
  };
}
