/** The context of an etcdctl command: its flags and arguments, the cluster, the output. */
import type { Command, Invocation } from "../base/command-tree.ts";
import type { FlagSet } from "../base/flags.ts";
import type { MethodType } from "../base/protobuf.ts";
import { Cluster } from "./connection.ts";
import { EXIT, ExitError } from "./exit.ts";
import { applyEnvironment, printSettings } from "./global-flags.ts";
import type { Io } from "./io.ts";
import { fieldsPrinter } from "./print/fields.ts";
import { jsonPrinter } from "./print/json.ts";
import { protobufPrinter } from "./print/protobuf.ts";
import { gathered, type Kind, type Printer, type Shown } from "./print/shown.ts";
import { simplePrinter } from "./print/simple.ts";
import { tablePrinter } from "./print/table.ts";
import { clusterOptions } from "./settings.ts";

export type CtlCommand = Command<Ctl>;

export class Ctl {
  readonly io: Io;
  readonly flags: FlagSet;
  readonly args: readonly string[];
  readonly invocation: Invocation<Ctl>;
  #cluster: Cluster | undefined;
  #printer: Printer | undefined;
  #valueOnly = false;

  constructor(io: Io, invocation: Invocation<Ctl>) {
    this.io = io;
    this.invocation = invocation;
    this.flags = invocation.flags;
    this.args = invocation.args;
  }

  /** Throws ExitError when environment and flags conflict. */
  async cluster(): Promise<Cluster> {
    if (this.#cluster !== undefined) return this.#cluster;
    const { flags, io, invocation } = this;
    applyEnvironment(flags, invocation.inherited, io, invocation.command.name === "watch");
    if (flags.bool("debug")) printSettings(flags, invocation.inherited, io);
    const options = await clusterOptions(flags, io);
    this.#printer = this.#choosePrinter();
    this.#cluster = new Cluster(options);
    return this.#cluster;
  }

  /** Time limit of a short command. */
  get timeoutMs(): number {
    return this.flags.number("command-timeout");
  }

  /** One request within the time limit of a short command. Rejects with RpcError. */
  async call<I, O>(method: MethodType<I, O>, request: Partial<I>): Promise<O> {
    const cluster = await this.cluster();
    return cluster.call(method, request, { timeoutMs: this.timeoutMs });
  }

  /** The current output format. Only after `cluster`. */
  get format(): string {
    return this.#requirePrinter().format;
  }

  /** Omits keys in the simple format. */
  showValuesOnly(): void {
    this.#valueOnly = true;
    this.#printer = this.#choosePrinter();
  }

  /** Prints a result, only as fast as the output is read. */
  async show<K extends Kind>(kind: K, value: Shown[K]): Promise<void> {
    const printer = this.#requirePrinter();
    const output = printer.print(kind, value);
    if (output === undefined) {
      throw new ExitError(EXIT.badFeature, `${printer.format} not supported as output format`);
    }
    for (const piece of gathered(output)) {
      this.io.out(piece);
      await this.io.drained();
    }
    const complaints = printer.complaints?.(kind, value) ?? "";
    if (complaints !== "") this.io.err(complaints);
  }

  async close(): Promise<void> {
    await this.#cluster?.close();
  }

  #requirePrinter(): Printer {
    if (this.#printer === undefined) throw new Error("the output format is known once the command has a cluster");
    return this.#printer;
  }

  #choosePrinter(): Printer {
    const hex = this.flags.bool("hex");
    switch (this.flags.string("write-out")) {
      case "simple":
        return simplePrinter({ hex, valueOnly: this.#valueOnly });
      case "fields":
        return fieldsPrinter(hex);
      case "json":
        return jsonPrinter(hex);
      case "protobuf":
        return protobufPrinter;
      case "table":
        return tablePrinter;
      default:
        throw new ExitError(EXIT.badFeature, "unsupported output format");
    }
  }
}
