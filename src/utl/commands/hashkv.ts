/** `etcdutl hashkv` */
import { openDatabase } from "../database.ts";
import { hashKvOf } from "../kv-hash.ts";
import { checkFormat, print } from "../print.ts";
import { EXIT, ExitError, type UtlCommand } from "../utl.ts";

export const hashkv: UtlCommand = {
  name: "hashkv",
  usage: "<filename>",
  short: "Prints the KV history hash of a given file",
  flags: [{ name: "rev", kind: "int", value: 0, usage: "maximum revision to hash (default: latest revision)" }],
  async run(utl) {
    const { args, flags } = utl;
    const [path, ...more] = args;
    if (path === undefined || more.length > 0) {
      throw new ExitError(EXIT.error, `accepts 1 arg(s), received ${args.length}`);
    }
    checkFormat(utl);
    const reader = await openDatabase(utl, path);
    try {
      const { hash, revision, compactRevision } = hashKvOf(reader, flags.number("rev"));
      print(utl, {
        headings: ["hash", "hash revision", "compact revision"],
        row: [hash, revision, compactRevision].map(String),
        fields: [
          ["Hash", hash],
          ["Hash revision", revision],
          ["Compact revision", compactRevision],
        ],
        json: { hash, hashRevision: revision, compactRevision },
        goType: "etcdutl.HashKV",
        goValue: `{${hash} ${revision} ${compactRevision}}`,
      });
    } finally {
      reader.close();
    }
  },
};
