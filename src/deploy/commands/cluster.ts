/** `kvorum cluster`: a cluster on hosts, from one inventory. */
import { existsSync, readFileSync, rmSync } from "node:fs";
import { join, relative, resolve } from "node:path";
import type { Flag } from "../../base/flags.ts";
import { type Context, type DeployCommand, DeployError } from "../common/context.ts";
import { writeWhole } from "../common/files.ts";
import { firstInventory } from "../inventory/first.ts";
import { certificateSet, type Inventory, type Member, readInventory } from "../inventory/inventory.ts";
import { INVENTORY_SCHEMA } from "../inventory/schema.ts";
import { makeSet, type SetOptions } from "../pki/set.ts";
import { composeText } from "../render/compose.ts";
import { hostFiles } from "../render/host.ts";
import { kubeadmCertificates, kubeadmFiles } from "../render/kubeadm.ts";
import { hostCommands } from "./hosts.ts";
import { kubeadmCommand } from "./kubeadm.ts";
import { operationCommands } from "./operations.ts";

const FILE: Flag = { name: "file", shorthand: "f", kind: "string", value: "cluster.yml", usage: "the inventory" };
const PORT_MAX = 65_535;

const init: DeployCommand = {
  name: "init",
  short: "Writes a first inventory with comments, and its schema for editors",
  example: "kvorum cluster init --name prod --member etcd-1=10.0.0.1 --member etcd-2=10.0.0.2 --member etcd-3=10.0.0.3",
  flags: [
    FILE,
    { name: "name", kind: "string", value: "etcd", usage: "name of the cluster" },
    { name: "member", kind: "strings", value: [], usage: "NAME=ADDRESS of each member" },
  ],
  required: ["member"],
  run(context, { flags, args }) {
    noArguments(args, "cluster init");
    const path = resolve(context.cwd, flags.string("file"));
    if (existsSync(path)) throw new DeployError(`${path} is there already: edit it, or name another file with --file`);
    const members = flags.strings("member").map((text) => {
      const [, name, address] = /^([^=]+)=(.+)$/.exec(text) ?? [];
      if (name === undefined || address === undefined)
        throw new DeployError(`--member ${text} is not NAME=ADDRESS, such as etcd-1=10.0.0.1`);
      return { name, address };
    });
    const text = firstInventory(flags.string("name"), members);
    const trial = `${path}.new-inventory`;
    writeWhole(trial, text);
    try {
      tellWarnings(context, readInventory(trial));
    } catch (error) {
      if (!(error instanceof DeployError)) throw error;
      throw new DeployError(error.message.replaceAll(trial, "this"));
    } finally {
      rmSync(trial, { force: true });
    }
    writeWhole(path, text);
    writeWhole(join(path, "..", "cluster.schema.json"), schemaText());
    context.out(`wrote ${path}\nNext: kvorum cluster check -f ${flags.string("file")}\n`);
  },
};

const check: DeployCommand = {
  name: "check",
  short: "Says what is wrong with an inventory, without touching a host",
  flags: [FILE],
  run(context, { flags, args }) {
    noArguments(args, "cluster check");
    const inventory = open(context, flags.string("file"));
    const { cluster, members } = inventory;
    context.out(
      `${cluster}: ${members.length} members: ${members.map(({ name, address }) => `${name} ${address}`).join(", ")}\n`,
    );
  },
};

const render: DeployCommand = {
  name: "render",
  short: "Writes every file that the hosts get into a directory, and touches nothing else",
  long: `Writes every file that the hosts get: the systemd unit, the configuration in the inventory's style, certificates. Each
host has a directory of its own with the paths as on the host. Certificates are made in the inventory's directory for
them, and kept when they are there and good. --target kubeadm writes static pods of
the kubelet instead, --target compose a compose.yaml for one machine.`,
  flags: [
    FILE,
    { name: "out", kind: "string", value: "rendered", usage: "the directory" },
    { name: "target", kind: "string", value: "systemd", usage: "systemd, kubeadm or compose" },
    { name: "image", kind: "string", value: "", usage: "the image with the program etcd, for compose" },
  ],
  async run(context, { flags, args }) {
    noArguments(args, "cluster render");
    const target = flags.string("target");
    if (target !== "systemd" && target !== "kubeadm" && target !== "compose")
      throw new DeployError(`--target is systemd, kubeadm or compose, not ${target}`);
    const inventory = open(context, flags.string("file"));
    const out = resolve(context.cwd, flags.string("out"));
    await makeCertificates(context, target === "kubeadm" ? kubeadmCertificates(inventory) : certificateSet(inventory));
    if (target === "compose") return renderCompose(context, inventory, out, flags.string("image"));
    const filesOf = target === "kubeadm" ? kubeadmFiles : foundingFiles;
    for (const member of inventory.members) {
      for (const { path, content, mode } of filesOf(inventory, member)) {
        writeChanged(context, join(out, member.name, path), content, mode);
      }
    }
  },
};

const foundingFiles = (inventory: Inventory, member: Member) => hostFiles(inventory, member, { isFounding: true });

function renderCompose(context: Context, inventory: Inventory, out: string, image: string): void {
  if (image === "") throw new DeployError("compose needs --image, such as gcr.io/etcd-development/etcd:v3.7.1");
  const last = inventory.clientPort + 10_000 * (inventory.members.length - 1);
  if (last > PORT_MAX) throw new DeployError(`ports.client is too high: the last member's port here would be ${last}`);
  const pki = relative(out, inventory.certificates.dir);
  writeChanged(
    context,
    join(out, "compose.yaml"),
    composeText(inventory, image, pki.startsWith(".") ? pki : `./${pki}`),
    0o644,
  );
}

function writeChanged(context: Context, path: string, content: string, mode: number): void {
  const shown = relative(context.cwd, path);
  if (existsSync(path) && readFileSync(path, "utf8") === content) return context.out(`unchanged ${shown}\n`);
  writeWhole(path, content, mode);
  context.out(`wrote     ${shown}\n`);
}

const schema: DeployCommand = {
  name: "schema",
  short: "Prints the JSON schema of an inventory",
  run(context) {
    context.out(schemaText());
  },
};

export const clusterCommand: DeployCommand = {
  name: "cluster",
  short: "A cluster on hosts, from one inventory",
  commands: [init, check, render, schema, kubeadmCommand, ...hostCommands, ...operationCommands],
};

const schemaText = (): string => `${JSON.stringify(INVENTORY_SCHEMA, null, 2)}\n`;

function open(context: Context, file: string): Inventory {
  const inventory = readInventory(resolve(context.cwd, file));
  tellWarnings(context, inventory);
  return inventory;
}

function tellWarnings(context: Context, { warnings }: Inventory): void {
  for (const warning of warnings) context.err(`warning: ${warning}\n`);
}

async function makeCertificates(context: Context, certificates: SetOptions): Promise<void> {
  const now = { nowMs: context.clock.wallMs(), random: context.random };
  for (const { action, file, why } of await makeSet(certificates, now)) {
    if (action !== "kept")
      context.out(`${action.padEnd(9)} certificate ${file}${why === undefined ? "" : ` (it was: ${why})`}\n`);
  }
}

function noArguments(args: readonly string[], what: string): void {
  if (args.length > 0) throw new DeployError(`${what} takes flags only, not ${args.join(" ")}`);
}
