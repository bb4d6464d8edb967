/**
 * Differences of older etcd versions from v3.7, which this server follows. Nothing else may differ.
 *
 * Each entry applies to stock versions below `before`. `adapt` changes requests before both get them, `hide` removes
 * what the older one lacks from both answers; `excuses` accepts a pair of answers.
 */
import {
  type CompactionRequest,
  type HashKVResponse,
  KVService,
  MaintenanceService,
  StatusRequest,
} from "../../src/proto/etcdserverpb.ts";
import type { Server } from "../harness/server.ts";
import { forEachRange } from "./compare.ts";
import type { Step } from "./history.ts";

export interface Difference {
  readonly before: readonly [number, number];
  readonly what: string;
  /** Changes a request that the older version does not answer deterministically. */
  adapt?(step: Step): void;
  hide?(step: Step, response: unknown): void;
  excuses?(step: Step, ours: string, stock: string): boolean;
}

const txnCheckErrors = [
  "etcdserver: key not found",
  "etcdserver: requested lease not found",
  "etcdserver: mvcc: required revision is a future revision",
  "etcdserver: mvcc: required revision has been compacted",
];

const known: readonly Difference[] = [
  {
    before: [3, 7],
    what: "3.7 answers keys_only from the index, which does not know the lease of a key",
    hide: (step, response) =>
      forEachRange(step, response, (request, answer) => {
        if (request.keysOnly) for (const kv of answer.kvs) kv.lease = 0n;
      }),
  },
  {
    before: [3, 6],
    what: "3.6 began to name the revision that it hashed",
    hide: ({ method }, response) => {
      if (method.path === MaintenanceService.HashKV.path) (response as HashKVResponse).hashRevision = 0;
    },
  },
  {
    before: [3, 5],
    what: "3.4 does not keep the hash of a compacted revision",
    excuses: ({ method }, ours, stock) =>
      method.path === MaintenanceService.HashKV.path &&
      stock.endsWith("mvcc: required revision has been compacted") &&
      ours.includes("hash:"),
  },
  {
    before: [3, 6],
    what: "3.6 checks the operations of a transaction in order, where older ones checked all puts first",
    excuses: ({ method }, ours, stock) =>
      method.path === KVService.Txn.path && [ours, stock].every((text) => txnCheckErrors.some((e) => text.endsWith(e))),
  },
  {
    before: [3, 5],
    what: "3.4 hashes tombstones that a compaction in the background has still to remove",
    adapt: ({ method, request }) => {
      if (method.path === KVService.Compact.path) (request as CompactionRequest).physical = true;
    },
  },
];

export async function stockVersion(stock: Server): Promise<readonly [number, number]> {
  const { version } = await stock.client.unary(MaintenanceService.Status, StatusRequest.create());
  const [major, minor] = version.split(".").map(Number);
  return [major!, minor!];
}

/** The differences explained by this stock server's version. */
export async function differencesTo(stock: Server): Promise<readonly Difference[]> {
  const [major, minor] = await stockVersion(stock);
  return known.filter(({ before }) => major < before[0] || (major === before[0] && minor < before[1]));
}
