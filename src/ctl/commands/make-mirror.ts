/** `etcdctl make-mirror`: copies keys to another cluster and follows their changes. */

import { encodeLossless } from "../../base/lossless-text.ts";
import {
  KVService,
  PutRequest,
  RangeRequest_SortOrder,
  RangeRequest_SortTarget,
  RequestOp,
} from "../../proto/etcdserverpb.ts";
import type { Event } from "../../proto/mvccpb.ts";
import { Cluster } from "../connection.ts";
import type { Ctl, CtlCommand } from "../ctl.ts";
import { badArgs, EXIT, ExitError } from "../exit.ts";
import { FIRST_KEY, FROM_KEY, prefixEnd } from "../ranges.ts";
import { credentials, limits, tlsFrom } from "../settings.ts";
import { cancelReason, WatchStream } from "../watch-stream.ts";

const PAGE_KEYS = 1000;
const REPORT_MS = 30_000;

export const makeMirror: CtlCommand = {
  name: "make-mirror",
  usage: "[options] <destination>",
  short: "Copies keys to another cluster, now and as they change",
  flags: [
    { name: "prefix", kind: "string", value: "", usage: "mirror the keys that start so" },
    { name: "rev", kind: "int", value: 0, usage: "mirror changes from this revision on, and not what there is" },
    { name: "max-txn-ops", kind: "uint", value: 128, usage: "most changes in a transaction at the destination" },
    { name: "dest-prefix", kind: "string", value: "", usage: "prefix at the destination instead of --prefix" },
    { name: "no-dest-prefix", kind: "bool", value: false, usage: "drop the prefix at the destination" },
    { name: "dest-cert", kind: "string", value: "", usage: "file of the client certificate for the destination" },
    { name: "dest-key", kind: "string", value: "", usage: "file of its key" },
    { name: "dest-cacert", kind: "string", value: "", usage: "file of the certificate authorities of the destination" },
    {
      name: "dest-insecure-transport",
      kind: "bool",
      value: true,
      usage: "speak without TLS where nothing asks for it",
    },
    { name: "dest-user", kind: "string", value: "", usage: "user[:password] at the destination" },
    { name: "dest-password", kind: "string", value: "", usage: "password at the destination" },
  ],
  async run(ctl) {
    const [destination, ...more] = ctl.args;
    if (destination === undefined || more.length > 0) throw badArgs("make-mirror takes one destination argument");
    const { flags, io } = ctl;
    if (flags.bool("no-dest-prefix") && flags.string("dest-prefix") !== "") {
      throw badArgs("`--dest-prefix` and `--no-dest-prefix` cannot be set at the same time, choose one");
    }
    const text = (name: string) => flags.string(`dest-${name}`);
    const target = new Cluster({
      endpoints: [destination],
      ...limits(flags, io),
      flagPrefix: "--dest-",
      tls: tlsFrom(io, text("cert"), text("key"), text("cacert"), flags.bool("dest-insecure-transport")),
      auth: await credentials(io, text("user"), text("password"), "Destination Password: "),
    });
    await new Mirror(ctl, await ctl.cluster(), target).run();
  },
};

class Mirror {
  readonly #ctl: Ctl;
  readonly #source: Cluster;
  readonly #target: Cluster;
  readonly #prefix: Buffer;
  readonly #targetPrefix: Buffer;
  #copied = 0;

  constructor(ctl: Ctl, source: Cluster, target: Cluster) {
    this.#ctl = ctl;
    this.#source = source;
    this.#target = target;
    const { flags } = ctl;
    this.#prefix = encodeLossless(flags.string("prefix"));
    const other = encodeLossless(flags.string("dest-prefix"));
    const keeps = other.length === 0 && !flags.bool("no-dest-prefix");
    this.#targetPrefix = keeps ? this.#prefix : other;
  }

  /** Does not return; rejects when either cluster fails. */
  async run(): Promise<never> {
    const timer = this.#ctl.io.clock.every(REPORT_MS, () => this.#ctl.io.out(`${this.#copied}\n`));
    try {
      const start = Math.max(0, this.#ctl.flags.number("rev") - 1);
      const revision = start === 0 ? await this.#copyAll() : start;
      await this.#follow(revision);
      throw new ExitError(EXIT.error, "the watch on the source ended");
    } finally {
      timer.cancel();
      await this.#target.close();
    }
  }

  /** All keys. An empty prefix means every key. */
  get #range(): { readonly key: Uint8Array; readonly rangeEnd: Uint8Array } {
    if (this.#prefix.length === 0) return { key: FIRST_KEY, rangeEnd: FROM_KEY };
    return { key: this.#prefix, rangeEnd: prefixEnd(this.#prefix) };
  }

  /** Copies the keys of one revision, page by page; returns the revision. */
  async #copyAll(): Promise<number> {
    let { key, rangeEnd } = this.#range;
    let revision = 0;
    for (;;) {
      const page = await this.#source.call(KVService.Range, {
        key,
        rangeEnd,
        revision,
        limit: PAGE_KEYS,
        sortOrder: RangeRequest_SortOrder.NONE,
        sortTarget: RangeRequest_SortTarget.KEY,
      });
      revision ||= page.header?.revision ?? 0;
      for (const kv of page.kvs) {
        await this.#target.call(KVService.Put, { key: this.#targetKey(kv.key), value: kv.value });
        this.#copied++;
      }
      const last = page.kvs.at(-1);
      if (!page.more || last === undefined) return revision;
      key = Buffer.concat([last.key, Buffer.of(0)]);
    }
  }

  async #follow(revision: number): Promise<void> {
    const stream = new WatchStream(this.#source, this.#ctl.io.clock, { ...this.#range, startRevision: revision + 1 });
    for await (const response of stream.responses()) {
      if (response.canceled) throw new ExitError(EXIT.error, cancelReason(response));
      await this.#apply(response.events);
    }
  }

  /** One transaction per revision, split when it has too many changes. */
  async #apply(events: readonly Event[]): Promise<void> {
    const max = Math.max(1, this.#ctl.flags.number("max-txn-ops"));
    let ops: RequestOp[] = [];
    let revision = 0;
    for (const event of events) {
      const next = event.kv?.modRevision ?? 0;
      if (ops.length === max || (ops.length > 0 && next > revision)) {
        await this.#target.call(KVService.Txn, { success: ops });
        ops = [];
      }
      revision = next;
      ops.push(this.#change(event));
      this.#copied++;
    }
    if (ops.length > 0) await this.#target.call(KVService.Txn, { success: ops });
  }

  #change({ type, kv }: Event): RequestOp {
    const key = this.#targetKey(kv?.key ?? Buffer.alloc(0));
    if (type !== 0) {
      return RequestOp.create({ requestDeleteRange: { key, rangeEnd: Buffer.alloc(0), prevKv: false } });
    }
    return RequestOp.create({ requestPut: PutRequest.create({ key, value: kv?.value ?? Buffer.alloc(0) }) });
  }

  #targetKey(key: Uint8Array): Buffer {
    return Buffer.concat([this.#targetPrefix, key.subarray(this.#prefix.length)]);
  }
}
