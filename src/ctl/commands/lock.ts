/** `etcdctl lock` */
import { decodeLossless } from "../../base/lossless-text.ts";
import { KVService } from "../../proto/etcdserverpb.ts";
import type { Cluster } from "../connection.ts";
import type { Ctl, CtlCommand } from "../ctl.ts";
import { badArgs, EXIT, ExitError } from "../exit.ts";
import type { ProgramEnd } from "../io.ts";
import { describeEnd } from "../program-end.ts";
import { awaitTurn, joinQueue, type Place } from "../queue.ts";
import { openSession, type Session, unlessInterrupted } from "../session.ts";

export const lock: CtlCommand = {
  name: "lock",
  usage: "<name> [program arg1 arg2 ...]",
  short: "Holds a named lock, or runs a program while holding it",
  long: `Holds a named lock until it is interrupted, or for as long as a program runs, and ends with the program's exit code. The
program finds the key of the lock in ETCD_LOCK_KEY and the revision it was taken at in ETCD_LOCK_REV.`,
  flags: [{ name: "ttl", kind: "int", value: 10, usage: "seconds after which a holder that is gone loses the lock" }],
  async run(ctl) {
    const [name, ...program] = ctl.args;
    if (name === undefined) throw badArgs("lock takes a lock name argument and an optional command to execute");
    const interrupted = ctl.io.interrupted();
    const cluster = await ctl.cluster();
    const session = await unlessInterrupted(openSession(cluster, ctl.io.clock, ctl.flags.number("ttl")), interrupted);
    try {
      await holdLock(ctl, cluster, session, interrupted, name, program);
    } finally {
      session.abandon();
    }
  },
};

async function holdLock(
  ctl: Ctl,
  cluster: Cluster,
  session: Session,
  interrupted: Promise<void>,
  name: string,
  program: readonly string[],
): Promise<void> {
  const place = await unlessInterrupted(joinQueue(cluster, name, session.lease, Buffer.alloc(0)), interrupted);
  try {
    await unlessInterrupted(awaitTurn(cluster, ctl.io.clock, name, place), interrupted);
  } catch (error) {
    await unlock(cluster, place);
    throw error;
  }
  // The lease, and with it the place in the queue, may have expired during the wait.
  const held = await cluster.call(KVService.Range, { key: place.key });
  if (held.kvs.length === 0) throw new ExitError(EXIT.error, "mutex: session is expired");
  if (program.length > 0) return runLocked(ctl, cluster, place, program);
  await ctl.show("get", held);
  const end = await Promise.race([interrupted, session.ended.then(() => "expired" as const)]);
  if (end === "expired") throw new ExitError(EXIT.error, "session expired");
  await unlock(cluster, place);
}

async function runLocked(ctl: Ctl, cluster: Cluster, place: Place, program: readonly string[]): Promise<void> {
  const [file, ...args] = program;
  const env = { ETCD_LOCK_KEY: decodeLossless(place.key), ETCD_LOCK_REV: String(place.header?.revision ?? 0) };
  let end: ProgramEnd;
  try {
    end = await ctl.io.runProgram(file!, args, env);
  } finally {
    await unlock(cluster, place);
  }
  if (end !== 0) throw new ExitError(typeof end === "number" ? end : EXIT.killed, describeEnd(end));
}

async function unlock(cluster: Cluster, { key }: Place): Promise<void> {
  await cluster.call(KVService.DeleteRange, { key });
}
