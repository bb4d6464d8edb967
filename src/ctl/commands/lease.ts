/** `etcdctl lease` */
import { clampToSafe, ParseError, parseInt64 } from "../../base/number-text.ts";
import { LeaseService } from "../../proto/etcdserverpb.ts";
import type { Ctl, CtlCommand } from "../ctl.ts";
import { badArgs, describeError, EXIT, ExitError, isFailure } from "../exit.ts";
import { leaseIdText } from "../print/lease-id.ts";
import { keepAliveOnce, keepAlive as keepAliveStream } from "../session.ts";

const grant: CtlCommand = {
  name: "grant",
  usage: "<ttl>",
  short: "Creates a lease that lasts the given seconds",
  async run(ctl) {
    const text = onlyArgument(ctl, "lease grant command needs TTL argument");
    let ttl: bigint;
    try {
      ttl = parseInt64(text, 10);
    } catch (error) {
      if (error instanceof ParseError) throw badArgs(`bad TTL (${error.message})`);
      throw error;
    }
    const request = { ttl: clampToSafe(ttl) };
    await ctl.show("grant", await failingAs("failed to grant lease", ctl.call(LeaseService.LeaseGrant, request)));
  },
};

const revoke: CtlCommand = {
  name: "revoke",
  usage: "<lease>",
  short: "Ends a lease and deletes its keys",
  async run(ctl) {
    const id = leaseArgument(onlyArgument(ctl, "lease revoke command needs 1 argument"));
    const response = await failingAs("failed to revoke lease", ctl.call(LeaseService.LeaseRevoke, { id }));
    await ctl.show("revoke", { id, response });
  },
};

const timeToLive: CtlCommand = {
  name: "timetolive",
  usage: "<lease> [options]",
  short: "Tells how long a lease still lasts",
  flags: [{ name: "keys", kind: "bool", value: false, usage: "list the keys that are attached to it" }],
  async run(ctl) {
    const id = leaseArgument(onlyArgument(ctl, "lease timetolive command needs lease ID as argument"));
    const keys = ctl.flags.bool("keys");
    const response = await connecting(ctl.call(LeaseService.LeaseTimeToLive, { id, keys }));
    await ctl.show("timeToLive", { keys, response });
  },
};

const list: CtlCommand = {
  name: "list",
  short: "Lists the leases",
  async run(ctl) {
    await ctl.show("leases", await connecting(ctl.call(LeaseService.LeaseLeases, {})));
  },
};

const keepAlive: CtlCommand = {
  name: "keep-alive",
  usage: "[options] <lease>",
  short: "Keeps a lease from ending",
  flags: [{ name: "once", kind: "bool", value: false, usage: "renew it once instead of for as long as this runs" }],
  async run(ctl) {
    const id = leaseArgument(onlyArgument(ctl, "lease keep-alive command needs lease ID as argument"));
    const cluster = await ctl.cluster();
    if (ctl.flags.bool("once")) {
      const response = await connecting(keepAliveOnce(cluster, id, ctl.timeoutMs));
      await ctl.show("keepAlive", response);
      return;
    }
    for await (const response of keepAliveStream(cluster, id, ctl.io.clock)) await ctl.show("keepAlive", response);
    if (ctl.format === "simple") ctl.io.out(`lease ${leaseIdText(id)} expired or revoked.\n`);
  },
};

export const lease: CtlCommand = {
  name: "lease",
  short: "Creates, renews, lists and ends leases",
  commands: [grant, revoke, timeToLive, list, keepAlive],
};

function onlyArgument(ctl: Ctl, complaint: string): string {
  const [first, ...more] = ctl.args;
  if (first === undefined || more.length > 0) throw badArgs(complaint);
  return first;
}

function leaseArgument(text: string): bigint {
  try {
    return parseInt64(text, 16);
  } catch (error) {
    if (!(error instanceof ParseError)) throw error;
    throw new ExitError(EXIT.badArgs, `bad lease ID arg (${error.message}), expecting ID in Hex`);
  }
}

async function failingAs<T>(what: string, result: Promise<T>): Promise<T> {
  try {
    return await result;
  } catch (error) {
    if (!isFailure(error)) throw error;
    throw new ExitError(EXIT.error, `${what} (${describeError(error)})`);
  }
}

/** These etcdctl commands treat every error as a connection failure. */
async function connecting<T>(result: Promise<T>): Promise<T> {
  try {
    return await result;
  } catch (error) {
    if (!isFailure(error)) throw error;
    throw new ExitError(EXIT.badConnection, describeError(error));
  }
}
