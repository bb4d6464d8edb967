/**
 * Puts the keys with one prefix back into a running cluster, as they were at a revision of a database: compared first, then
 * written in transactions that change only what is still as the plan saw it.
 */
import type { BoltReader } from "../bolt/reader.ts";
import type { Client } from "../client/client.ts";
import { op, when } from "../client/operations.ts";
import { toByteString } from "../mvcc/model/types.ts";
import { keysAt, pairAt } from "./view.ts";

/** One key that differs. */
export interface KeyStep {
  readonly key: Buffer;
  /** The revision of the key's last change in the cluster; 0 when it does not exist. */
  readonly modRevision: number;
  /** Where it is in the backup; undefined when it is to be deleted. */
  readonly row: Uint8Array | undefined;
  /** A lease that exists, or 0n. */
  readonly lease: bigint;
}

export interface PrefixPlan {
  readonly steps: readonly KeyStep[];
  readonly created: number;
  readonly changed: number;
  readonly deleted: number;
  readonly same: number;
  /** Keys whose lease is gone: what they stood for has ended, so they are left out. */
  readonly leaseGone: readonly Buffer[];
}

const PAGE_KEYS = 500;

/** Memory: one entry for each key with the prefix. */
export async function planPrefix(
  client: Client,
  reader: BoltReader,
  revision: number,
  prefix: Buffer,
): Promise<PrefixPlan> {
  const wanted = new Map(keysAt(reader, revision, toByteString(prefix)));
  const leases = new Set(await client.leases.list());
  const steps: KeyStep[] = [];
  const leaseGone: Buffer[] = [];
  let [changed, deleted, same] = [0, 0, 0];
  /** Undefined when the lease of the pair is gone. */
  const leaseOf = (lease: bigint): bigint | undefined => (lease === 0n || leases.has(lease) ? lease : undefined);
  for await (const { kvs } of client.bytes.pages({ prefix }, { pageSize: PAGE_KEYS })) {
    for (const { key, value, modRevision, lease: leaseNow } of kvs) {
      const name = toByteString(key);
      const row = wanted.get(name);
      wanted.delete(name);
      const pair = row === undefined ? undefined : pairAt(reader, row);
      const lease = pair === undefined ? 0n : leaseOf(pair.lease);
      const bytes = Buffer.from(key);
      if (pair === undefined) {
        deleted++;
        steps.push({ key: bytes, modRevision, row: undefined, lease: 0n });
      } else if (lease === undefined) {
        leaseGone.push(bytes);
      } else if (Buffer.compare(pair.value, value) === 0 && lease === leaseNow) same++;
      else {
        changed++;
        steps.push({ key: bytes, modRevision, row, lease });
      }
    }
  }
  let created = 0;
  for (const [name, row] of wanted) {
    const key = Buffer.from(name, "latin1");
    const lease = leaseOf(pairAt(reader, row).lease);
    if (lease === undefined) leaseGone.push(key);
    else {
      created++;
      steps.push({ key, modRevision: 0, row, lease });
    }
  }
  return { steps, created, changed, deleted, same, leaseGone };
}

/** etcd accepts 128 operations and 1.5 MiB in a request, unless it is told otherwise. */
const OPS_MAX = 100;
const BYTES_MAX = 1024 * 1024;

/** Carries out a plan; returns the keys that somebody else had changed meanwhile, which are left as they are. */
export async function applyPrefix(
  client: Client,
  reader: BoltReader,
  plan: PrefixPlan,
  applied: (keys: number) => void,
): Promise<readonly Buffer[]> {
  const conflicts: Buffer[] = [];
  for (const group of groupsOf(reader, plan.steps)) {
    if (!(await write(client, reader, group))) {
      for (const step of group) if (!(await write(client, reader, [step]))) conflicts.push(step.key);
    }
    applied(group.length);
  }
  return conflicts;
}

function* groupsOf(reader: BoltReader, steps: readonly KeyStep[]): Generator<readonly KeyStep[], void, void> {
  let group: KeyStep[] = [];
  let bytes = 0;
  for (const step of steps) {
    const size = step.key.length * 2 + (step.row === undefined ? 0 : pairAt(reader, step.row).value.length);
    if (group.length === OPS_MAX || (group.length > 0 && bytes + size > BYTES_MAX)) {
      yield group;
      group = [];
      bytes = 0;
    }
    group.push(step);
    bytes += size;
  }
  if (group.length > 0) yield group;
}

async function write(client: Client, reader: BoltReader, group: readonly KeyStep[]): Promise<boolean> {
  const { succeeded } = await client.bytes.txn({
    compare: group.map(({ key, modRevision }) => when.modRevision(key, "=", modRevision)),
    success: group.map(({ key, row, lease }) =>
      row === undefined ? op.delete(key) : op.put(key, pairAt(reader, row).value, lease === 0n ? {} : { lease }),
    ),
  });
  return succeeded;
}
