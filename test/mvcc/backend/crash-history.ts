import { CompactedError, FROM_KEY } from "../../../src/mvcc/model/types.ts";
import type { MvccStore } from "../../../src/mvcc/store/store.ts";

/** A history that every process can reproduce: the effect of the log's entry `index`. */
export function historyOp(store: MvccStore, index: number): void {
  if (index % 500 === 0) {
    try {
      store.compact(store.currentRevision - 100).catch(() => {});
    } catch (error) {
      if (!(error instanceof CompactedError)) throw error;
    }
    return;
  }
  const txn = store.begin();
  const number = (index * 7919) % 1000;
  const key = Buffer.from(`key${number}`);
  if (index % 11 === 0) txn.deleteRange(key, null);
  else if (index % 211 === 0) txn.deleteRange(Buffer.from("key99"), FROM_KEY);
  else {
    txn.put(key, Buffer.alloc((index * 31) % 700, `${index} `), 0n);
    if (index % 3 === 0) txn.put(Buffer.from(`other${number % 10}`), Buffer.from(String(index)), 0n);
  }
  txn.end();
}
