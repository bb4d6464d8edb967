/**
 * New certificates, and a new authority, while the cluster serves. Members read their own certificates again by themselves;
 * whom they trust they read at a start. So an authority is changed in three rounds: both are trusted, all certificates come
 * from the new one, the old one is not trusted any more.
 */
import { X509Certificate } from "node:crypto";
import { rmSync } from "node:fs";
import { join } from "node:path";
import { Cluster, clientUrl, tlsOf } from "../cluster/access.ts";
import { DeployError } from "../common/context.ts";
import { readRequired, readText, SECRET_MODE, writeWhole } from "../common/files.ts";
import { certificateSet, type Inventory, type Member } from "../inventory/inventory.ts";
import { Authority } from "../pki/authority.ts";
import { shakeHands } from "../pki/handshake.ts";
import { keyPem } from "../pki/keys.ts";
import { authorityPair, type Pair, serverPair, sharedPair, trustedBesides } from "../pki/layout.ts";
import { makeSet } from "../pki/set.ts";
import type { Operation, Step } from "../steps/run.ts";
import { decideRolling, type Rolling } from "./rolling.ts";
import { inventoryOf, type Tools, textOf } from "./tools.ts";
import { markStep, memberNamed, restartStep, stampOf, writeStep } from "./turn.ts";

const SHAKE_MS = 5_000;
/** More than any certificate is valid: every one is made again. */
const ALL_DAYS = 1_000_000;

interface Rotating extends Rolling {
  readonly stamp: string;
}

export function rotateCertificates(tools: Tools): Operation<Rotating> {
  return {
    name: "rotate-certs",
    subject: "",
    decide: () => decide(tools),
    steps: ({ after, order }) => {
      const inventory = inventoryOf(tools, after);
      return [
        {
          text: "make all certificates again",
          run: async () => void (await makeSet({ ...certificateSet(inventory), renewDays: ALL_DAYS }, nowOf(tools))),
        },
        ...order.flatMap((name) => {
          const member = memberNamed(inventory, name);
          return [writeStep(tools.context, inventory, member), shownStep(tools, inventory, member)];
        }),
      ];
    },
  };
}

export function rotateAuthority(tools: Tools): Operation<Rotating> {
  const { context } = tools;
  return {
    name: "rotate-ca",
    subject: "",
    decide: () => decide(tools),
    steps: ({ after, order, stamp }) => {
      const inventory = inventoryOf(tools, after);
      const members = order.map((name) => memberNamed(inventory, name));
      const round = (phase: string) =>
        members.flatMap((member) => [
          writeStep(context, inventory, member, phase),
          markStep(context, inventory, member, phase),
          restartStep(context, inventory, member, phase),
        ]);
      return [
        { text: "make a new authority, to be trusted beside the old one", run: () => makeNext(tools, inventory) },
        ...round(" (both authorities are trusted)"),
        {
          text: `let the new authority sign, and make all certificates again; the old one is kept in ${retired(inventory, stamp).cert}`,
          run: () => takeNext(tools, inventory, stamp),
        },
        ...members.flatMap((member) => [
          writeStep(context, inventory, member, " (certificates of the new authority)"),
          shownStep(tools, inventory, member),
        ]),
        {
          text: "trust the old authority no more",
          run: async () => rmSync(trustedBesides(inventory.certificates.dir), { force: true }),
        },
        ...round(" (the new authority alone is trusted)"),
      ];
    },
  };
}

async function decide(tools: Tools): Promise<Rotating> {
  const text = textOf(tools);
  return { ...(await decideRolling(tools, text, text)), stamp: stampOf(tools.context) };
}

/** Certificates are read again within seconds. */
function shownStep(tools: Tools, inventory: Inventory, member: Member): Step {
  const { dir, isShared } = inventory.certificates;
  const path = (isShared ? sharedPair(dir) : serverPair(dir, member.name)).cert;
  const isShown = async () => {
    const { certificate } = await shakeHands(
      clientUrl(inventory, member),
      tlsOf(inventory),
      SHAKE_MS,
      tools.context.clock,
    );
    return certificate?.serialNumber === new X509Certificate(readRequired(path, "a certificate")).serialNumber;
  };
  return {
    text: `${member.name}: see that it shows its new certificate`,
    isDone: isShown,
    run: () => new Cluster(tools.context, inventory).until(`${member.name} shows its new certificate`, isShown),
  };
}

const nextPair = ({ certificates: { dir } }: Inventory): Pair => ({
  cert: join(dir, "ca-next.crt"),
  key: join(dir, "ca-next.key"),
});

const retired = ({ certificates: { dir } }: Inventory, stamp: string): Pair => ({
  cert: join(dir, "retired", `ca-${stamp}.crt`),
  key: join(dir, "retired", `ca-${stamp}.key`),
});

async function makeNext(tools: Tools, inventory: Inventory): Promise<void> {
  const { cluster, certificates } = inventory;
  const { dir, algorithm, authorityDays } = certificates;
  if (readText(authorityPair(dir).key) === undefined)
    throw new DeployError(
      `${authorityPair(dir).key} is not here: an authority elsewhere signs for this cluster, and its change begins there`,
    );
  const next = nextPair(inventory);
  // Made by a run that was interrupted, it may be trusted on hosts already.
  if (readText(next.cert) === undefined || readText(next.key) === undefined) {
    const { context } = tools;
    const name = `${cluster} CA ${stampOf(context)}`;
    const authority = await Authority.create(name, algorithm, authorityDays, nowOf(tools));
    writeWhole(next.key, keyPem(authority.key), SECRET_MODE);
    writeWhole(next.cert, authority.pem);
  }
  writeWhole(trustedBesides(dir), readRequired(next.cert, "the new authority"));
}

/** Every write can be repeated; what the next one needs is read from what the one before left. */
async function takeNext(tools: Tools, inventory: Inventory, stamp: string): Promise<void> {
  const { dir } = inventory.certificates;
  const current = authorityPair(dir);
  const [next, old] = [nextPair(inventory), retired(inventory, stamp)];
  const [cert, key] = [readText(next.cert), readText(next.key)];
  if (cert !== undefined && key !== undefined) {
    if (readText(old.cert) === undefined) {
      writeWhole(old.key, readRequired(current.key, "the key of the old authority"), SECRET_MODE);
      writeWhole(old.cert, readRequired(current.cert, "the old authority"));
    }
    writeWhole(trustedBesides(dir), readRequired(old.cert, "the old authority"));
    writeWhole(current.key, key, SECRET_MODE);
    writeWhole(current.cert, cert);
    rmSync(next.key, { force: true });
    rmSync(next.cert, { force: true });
  }
  await makeSet(certificateSet(inventory), nowOf(tools));
}

const nowOf = ({ context }: Tools) => ({ nowMs: context.clock.wallMs(), random: context.random });
