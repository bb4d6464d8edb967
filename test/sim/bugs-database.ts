/** Planted bugs of the storage engine: what a loss of power, or a reader beside commits, must not find. */
import type { CommitStep } from "../../src/bolt/commit.ts";
import { BoltEngine } from "../../src/bolt/engine.ts";
import { FreeList } from "../../src/bolt/free-list.ts";
import { PageFile } from "../../src/bolt/page-file.ts";
import { Rewrite } from "../../src/bolt/rewrite.ts";
import { WriteTransaction } from "../../src/bolt/transaction.ts";
import { LongWrite } from "../../src/mvcc/backend/long-write.ts";
import { OpenFile } from "../../src/mvcc/backend/open-file.ts";
import { type Bug, replace, withoutSyncs } from "./plant.ts";

export const DATABASE_BUGS: readonly Bug[] = [
  {
    name: "database-not-synced",
    about: "the database is never synced",
    plant: withoutSyncs((path) => path.endsWith("/db")),
  },
  {
    name: "meta-before-pages",
    about: "a commit writes the meta page before its other pages are synced",
    settings: { only: ["power", "powerAll"] },
    plant: () =>
      replace(
        WriteTransaction.prototype,
        "prepare",
        (original) =>
          function (this: WriteTransaction, options) {
            const { steps, committed } = original.call(this, options);
            return { steps: withoutFirstSync(steps), committed };
          },
      ),
  },
  {
    name: "pages-reused-at-once",
    about: "a commit writes into pages of the state before it",
    settings: { only: ["power", "powerAll", "kill"] },
    plant: () =>
      replace(
        FreeList.prototype,
        "free",
        (original) =>
          function (this: FreeList, ...args) {
            original.apply(this, args);
            this.release([]);
          },
      ),
  },
  {
    name: "pages-reused-while-read",
    about: "a commit writes into pages of a state that is being read",
    settings: { only: ["isolate", "replace", "kill"], snapshots: { count: 10, catchUp: 5 } },
    plant: () =>
      replace(
        BoltEngine.prototype,
        "begin",
        (original) =>
          function (this: BoltEngine) {
            return original.call(this, []);
          },
      ),
  },
  {
    name: "cached-page-outdated",
    about: "a page stays in memory though a commit has written it",
    plant: () =>
      replace(
        OpenFile.prototype,
        "written",
        (original) =>
          function (this: OpenFile, written) {
            original.call(this, { ...written, writtenRuns: [] });
          },
      ),
  },
  {
    name: "copy-misses-changes",
    about: "defragmentation loses what is committed while it copies",
    settings: { defragmentEveryMs: 300 },
    plant: () => replace(Rewrite.prototype, "note", () => () => {}),
  },
  {
    name: "copy-not-synced",
    about: "defragmentation gives its copy the database's name before it is synced",
    settings: { only: ["power", "powerAll"], defragmentEveryMs: 300 },
    plant: withoutSyncs((path) => path.endsWith(".defrag-tmp")),
  },
  {
    name: "unfinished-write-unmarked",
    about: "after a crash, rows of a transaction that was only committed in part stay in the database",
    settings: { only: ["power", "kill"], faultEveryMs: 1500, deleteAllEveryMs: 400 },
    plant: () => replace(LongWrite.prototype, "seal", () => () => {}),
  },
  {
    name: "page-taken-unchecked",
    about: "a page is used without its number being compared",
    settings: { only: ["rot", "kill"] },
    plant: () =>
      replace(
        PageFile.prototype,
        "spanOf",
        (original) =>
          function (this: PageFile, bytes, at, id, bucket) {
            const page = Buffer.from(bytes.subarray(at, at + this.pageSize));
            page.writeBigUInt64LE(BigInt(id));
            return original.call(this, page, 0, id, bucket);
          },
      ),
  },
];

function* withoutFirstSync(steps: Iterable<CommitStep>): Generator<CommitStep, void, void> {
  let hasSynced = false;
  for (const step of steps) {
    if (step.kind === "sync" && !hasSynced) hasSynced = true;
    else yield step;
  }
}
