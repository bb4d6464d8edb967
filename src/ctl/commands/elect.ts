/** `etcdctl elect` */
import { encodeLossless } from "../../base/lossless-text.ts";
import { KVService, RangeResponse, RequestOp } from "../../proto/etcdserverpb.ts";
import type { Cluster } from "../connection.ts";
import type { Ctl, CtlCommand } from "../ctl.ts";
import { badArgs, EXIT, ExitError } from "../exit.ts";
import { awaitTurn, first, ifCreatedAt, joinQueue } from "../queue.ts";
import { prefixEnd } from "../ranges.ts";
import { openSession, type Session, unlessInterrupted } from "../session.ts";
import { WatchStream } from "../watch-stream.ts";

const SESSION_TTL_S = 60;

export const elect: CtlCommand = {
  name: "elect",
  usage: "<election> [proposal]",
  short: "Stands for a leader election, or watches one",
  flags: [{ name: "listen", shorthand: "l", kind: "bool", value: false, usage: "only watch who leads" }],
  async run(ctl) {
    const [election, proposal, ...more] = ctl.args;
    if (election === undefined || more.length > 0) {
      throw badArgs("elect takes one election name argument and an optional proposal argument");
    }
    const listen = ctl.flags.bool("listen");
    if (proposal === undefined && !listen) throw badArgs("no proposal argument but -l not set");
    if (proposal !== undefined && listen) throw badArgs("proposal given but -l is set");
    const interrupted = ctl.io.interrupted();
    const cluster = await ctl.cluster();
    if (proposal === undefined) await Promise.race([observe(ctl, cluster, election), interrupted]);
    else {
      const session = await unlessInterrupted(openSession(cluster, ctl.io.clock, SESSION_TTL_S), interrupted);
      try {
        await campaign(ctl, cluster, session, interrupted, election, encodeLossless(proposal));
      } finally {
        session.abandon();
      }
    }
  },
};

async function campaign(
  ctl: Ctl,
  cluster: Cluster,
  session: Session,
  interrupted: Promise<void>,
  election: string,
  proposal: Buffer,
): Promise<void> {
  const place = await unlessInterrupted(joinQueue(cluster, election, session.lease, proposal), interrupted);
  const resign = async () => {
    const requestDeleteRange = { key: place.key, rangeEnd: Buffer.alloc(0), prevKv: false };
    const success = [RequestOp.create({ requestDeleteRange })];
    await cluster.call(KVService.Txn, { compare: [ifCreatedAt(place.key, place.createRevision)], success });
  };
  try {
    await unlessInterrupted(awaitTurn(cluster, ctl.io.clock, election, place), interrupted);
  } catch (error) {
    await resign();
    throw error;
  }
  await ctl.show("get", await cluster.call(KVService.Range, { key: place.key }));
  const end = await Promise.race([interrupted, session.ended.then(() => "expired" as const)]);
  if (end === "expired") throw new ExitError(EXIT.error, "elect: session expired");
  await resign();
}

/** Prints each leader and each of its proposals. Does not return. */
async function observe(ctl: Ctl, cluster: Cluster, election: string): Promise<never> {
  for (;;) {
    const leader = await first(cluster, election);
    let key = leader.kvs[0]?.key;
    let revision = leader.header?.revision ?? 0;
    if (key === undefined) {
      ({ key, revision } = await firstCandidate(ctl, cluster, election, revision + 1));
      continue;
    }
    await ctl.show("get", RangeResponse.create({ header: leader.header, kvs: leader.kvs }));
    const stream = new WatchStream(cluster, ctl.io.clock, { key, startRevision: revision + 1 });
    for await (const { header, events } of stream.responses()) {
      for (const { type, kv } of events) {
        if (type === 0 && kv) await ctl.show("get", RangeResponse.create({ header, kvs: [kv] }));
      }
      if (events.some(({ type }) => type !== 0)) break;
    }
  }
}

/** Waits for a candidate. */
async function firstCandidate(ctl: Ctl, cluster: Cluster, election: string, startRevision: number) {
  const key = encodeLossless(`${election}/`);
  const stream = new WatchStream(cluster, ctl.io.clock, { key, rangeEnd: prefixEnd(key), startRevision });
  for await (const { events, header } of stream.responses()) {
    const put = events.find(({ type }) => type === 0);
    if (put?.kv) return { key: put.kv.key, revision: header?.revision ?? 0 };
  }
  throw new ExitError(EXIT.error, "elect: observer lost");
}
