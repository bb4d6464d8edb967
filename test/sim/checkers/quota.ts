/**
 * What members without space may accept and refuse. A request that starts after the alarm was raised and is answered
 * before it was disarmed meets the alarm: one that grows the store must be refused, without effect. A request is
 * refused for space only while the alarm is active, or by a member above its quota; in the latter case, as in etcd, it
 * may have been written all the same, when the quota was exceeded while applying.
 */
import type { RequestOp, TxnRequest } from "../../../src/proto/etcdserverpb.ts";
import type { Finding, Moment, Operation } from "./history.ts";
import type { Timeline } from "./timeline.ts";

export interface QuotaInput {
  /** Requests whose refusal is found to be without effect are marked so. */
  readonly operations: readonly Operation[];
  /** `member/type` of each active alarm. */
  readonly alarms: Timeline<readonly string[]>;
  /** When a member found that a request does not fit. */
  readonly overQuota: readonly { readonly member: string; readonly moment: Moment }[];
}

const NOSPACE = /\/1$/;
const ERROR = "etcdserver: mvcc: database space exceeded";

export function checkQuota({ operations, alarms, overQuota }: QuotaInput): Finding[] {
  const findings: Finding[] = [];
  for (const operation of operations) {
    const { id, member, outcome, invoked, returned } = operation;
    const isRefused = outcome.kind === "unknown" && outcome.error.includes("database space exceeded");
    if (!isRefused && !(outcome.kind === "ok" && grows(operation))) continue;
    const raised = alarms
      .during(invoked, returned, false)
      .map(({ state }) => state.some((alarm) => NOSPACE.test(alarm)));
    const add = (message: string): void => void findings.push({ checker: "quota", message, moment: returned });
    if (!isRefused) {
      if (raised.every(Boolean)) add(`operation ${id} at ${member} was taken while the alarm stood`);
      continue;
    }
    if (!outcome.error.includes(ERROR))
      add(`operation ${id} at ${member} was refused with another error: ${outcome.error}`);
    if (!grows(operation)) add(`operation ${id} at ${member} was refused for space, of which it needs none`);
    if (raised.every(Boolean)) operation.outcome = { kind: "refused", error: outcome.error };
    else if (!raised.some(Boolean)) {
      const isOver = overQuota.some(
        (each) => each.member === member && each.moment >= invoked && each.moment <= returned,
      );
      if (!isOver) add(`operation ${id} at ${member} was refused for space, but there was no alarm, and it had space`);
    }
  }
  return findings;
}

function grows({ action }: Operation): boolean {
  if (action.kind === "txn") return puts(action.request);
  return action.kind === "put" || (action.kind === "other" && action.name === "grant");
}

const puts = ({ success, failure }: TxnRequest): boolean => [...success, ...failure].some(isPut);

const isPut = ({ requestPut, requestTxn }: RequestOp): boolean =>
  requestPut !== undefined || (requestTxn !== undefined && puts(requestTxn));
