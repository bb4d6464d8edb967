/** `etcdctl compaction` */
import { clampToSafe, ParseError, parseInt64 } from "../../base/number-text.ts";
import { KVService } from "../../proto/etcdserverpb.ts";
import type { CtlCommand } from "../ctl.ts";
import { badArgs, EXIT, ExitError } from "../exit.ts";

export const compaction: CtlCommand = {
  name: "compaction",
  usage: "[options] <revision>",
  short: "Drops the history before a revision",
  flags: [
    { name: "physical", kind: "bool", value: false, usage: "wait until the old revisions are gone from the disk" },
  ],
  async run(ctl) {
    const [text, ...more] = ctl.args;
    if (text === undefined || more.length > 0) throw badArgs("compaction command needs 1 argument");
    let revision: bigint;
    try {
      revision = parseInt64(text, 10);
    } catch (error) {
      if (error instanceof ParseError) throw new ExitError(EXIT.error, error.message);
      throw error;
    }
    await ctl.call(KVService.Compact, { revision: clampToSafe(revision), physical: ctl.flags.bool("physical") });
    ctl.io.out(`compacted revision ${revision}\n`);
  },
};
