/** `etcdctl member` */
import { ParseError, parseUint64 } from "../../base/number-text.ts";
import { quote } from "../../base/quote.ts";
import { GoValueError } from "../../config/values/go-value.ts";
import { parseUrls } from "../../config/values/url.ts";
import { ClusterService } from "../../proto/etcdserverpb.ts";
import type { Ctl, CtlCommand } from "../ctl.ts";
import { badArgs, EXIT, ExitError } from "../exit.ts";
import { isSerializable } from "./get.ts";

const add: CtlCommand = {
  name: "add",
  usage: "<name> [options]",
  short: "Adds a member",
  flags: [
    { name: "peer-urls", kind: "string", value: "", usage: "peer URLs of the new member, separated by commas" },
    { name: "learner", kind: "bool", value: false, usage: "add it as a learner, which does not vote" },
  ],
  async run(ctl) {
    const [name, ...more] = ctl.args;
    if (name === undefined) throw badArgs("member name not provided");
    if (more.length > 0) {
      const urls = ctl.args.filter((arg) => arg.toLowerCase().startsWith("http"));
      throw badArgs(`too many arguments${urls.map((url) => `, did you mean --peer-urls=${url}`).join("")}`);
    }
    const peerUrls = ctl.flags.string("peer-urls");
    if (peerUrls === "") throw badArgs("member peer urls not provided");
    const request = { peerUrls: urlsOf(peerUrls), isLearner: ctl.flags.bool("learner") };
    const response = await ctl.call(ClusterService.MemberAdd, request);
    await ctl.show("memberAdd", response);
    if (ctl.format !== "simple") return;
    const cluster = response.members.flatMap((member) => {
      const shown = member.id === response.member?.id ? name : member.name;
      return member.peerUrls.map((url) => `${shown}=${url}`);
    });
    ctl.io.out(
      `\nETCD_NAME=${quote(name)}\nETCD_INITIAL_CLUSTER=${quote(cluster.join(","))}\n` +
        `ETCD_INITIAL_ADVERTISE_PEER_URLS=${quote(peerUrls)}\nETCD_INITIAL_CLUSTER_STATE="existing"\n`,
    );
  },
};

const remove: CtlCommand = {
  name: "remove",
  usage: "<member>",
  short: "Removes a member",
  async run(ctl) {
    const id = memberArgument(ctl);
    await ctl.show("memberRemove", { id, response: await ctl.call(ClusterService.MemberRemove, { id }) });
  },
};

const update: CtlCommand = {
  name: "update",
  usage: "<member> [options]",
  short: "Changes the peer URLs of a member",
  flags: [{ name: "peer-urls", kind: "string", value: "", usage: "the member's peer URLs, separated by commas" }],
  async run(ctl) {
    const id = memberArgument(ctl);
    const peerUrls = ctl.flags.string("peer-urls");
    if (peerUrls === "") throw badArgs("member peer urls not provided");
    const response = await ctl.call(ClusterService.MemberUpdate, { id, peerUrls: urlsOf(peerUrls) });
    await ctl.show("memberUpdate", { id, response });
  },
};

const list: CtlCommand = {
  name: "list",
  short: "Lists the members",
  long: `Lists the members. The simple format has, for each: id, status, name, peer URLs, client URLs, is learner.`,
  flags: [{ name: "consistency", kind: "string", value: "l", usage: "linearizable (l) or serializable (s)" }],
  async run(ctl) {
    const linearizable = !isSerializable(ctl.flags.string("consistency"));
    await ctl.show("memberList", await ctl.call(ClusterService.MemberList, { linearizable }));
  },
};

const promote: CtlCommand = {
  name: "promote",
  usage: "<member>",
  short: "Makes a learner a voting member",
  async run(ctl) {
    const id = memberArgument(ctl);
    await ctl.show("memberPromote", { id, response: await ctl.call(ClusterService.MemberPromote, { id }) });
  },
};

export const member: CtlCommand = {
  name: "member",
  short: "Lists and changes the members",
  commands: [add, remove, update, list, promote],
};

/** Throws ExitError when one is not a valid member URL. */
function urlsOf(list: string): string[] {
  try {
    parseUrls(list);
    return list.split(",");
  } catch (error) {
    if (error instanceof GoValueError) throw new ExitError(EXIT.error, error.message);
    throw error;
  }
}

function memberArgument(ctl: Ctl): bigint {
  const [text, ...more] = ctl.args;
  if (text === undefined || more.length > 0) throw badArgs("member ID is not provided");
  try {
    return parseUint64(text, 16);
  } catch (error) {
    if (error instanceof ParseError) throw badArgs(`bad member ID arg (${error.message}), expecting ID in Hex`);
    throw error;
  }
}
