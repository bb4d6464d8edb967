/** `kvorum cert`: makes the certificates of a cluster, shows what files say, and checks them against a running cluster. */
import { X509Certificate } from "node:crypto";
import { readdirSync, statSync } from "node:fs";
import { join, relative, resolve } from "node:path";
import type { Flag } from "../../base/flags.ts";
import { systemText } from "../../base/system-error.ts";
import { renderTable } from "../../base/table.ts";
import type { TlsOptions } from "../../client/raw.ts";
import { type Context, type DeployCommand, DeployError, EXIT } from "../common/context.ts";
import { readRequired, readText, SECRET_MODE, writeWhole } from "../common/files.ts";
import { FORMAT, type GivenFlags, isJson } from "../common/flags.ts";
import { Authority, certificatesOf, firstCertificate, type Revocation } from "../pki/authority.ts";
import { type Handshake, shakeHands } from "../pki/handshake.ts";
import { daysLeft, namesOf, oneLine, type Remark, remarksOn, usagesOf } from "../pki/inspect.ts";
import { describeKey, KEY_ALGORITHMS, keyAlgorithm, parseKey } from "../pki/keys.ts";
import { authorityPair, revocationListPath, revokedPath } from "../pki/layout.ts";
import { importCertificates, makeSet, type SetOptions, type Step } from "../pki/set.ts";

const PROBE_MS = 5_000;
const DAYS = 365;
const AUTHORITY_DAYS = 3650;
const RENEW_DAYS = 30;

const SET_FLAGS: readonly Flag[] = [
  { name: "dir", kind: "string", value: "pki", usage: "directory of the certificates" },
  {
    name: "member",
    kind: "strings",
    value: [],
    usage: "NAME=ADDRESS of a member, an IP address or a DNS name; repeat it for more members and more addresses",
  },
  { name: "name", kind: "strings", value: [], usage: "address or DNS name that every member has too" },
  { name: "client", kind: "strings", value: ["root"], usage: "client certificates, by user name" },
  { name: "shared", kind: "bool", value: false, usage: "one certificate for all members, in place of two for each" },
  { name: "algorithm", kind: "string", value: "ecdsa-p256", usage: `kind of the keys: ${KEY_ALGORITHMS.join(", ")}` },
  { name: "cluster", kind: "string", value: "etcd", usage: "name of the cluster, which the authority bears" },
  { name: "days", kind: "uint", value: DAYS, usage: "days that certificates are valid" },
  { name: "ca-days", kind: "uint", value: AUTHORITY_DAYS, usage: "days that a new authority is valid" },
  { name: "renew-days", kind: "uint", value: RENEW_DAYS, usage: "renew what ends within so many days" },
];

const make: DeployCommand = {
  name: "make",
  short: "Makes what is missing or near its end: authority, members' and clients' certificates",
  long: `Makes the certificates of a cluster in one directory: ca.crt and ca.key, members/NAME/server and peer, clients/NAME.
What is there and good is kept, so it can be repeated: to renew, to add a member, or after an interruption.
To use an authority that you have (cfssl's, kubeadm's), put its certificate and key there as ca.crt and ca.key.
Where another office signs: --csr writes keys and signing requests, and "kvorum cert import" takes the answers.`,
  example: `kvorum cert make --member m1=10.0.0.1 --member m2=10.0.0.2 --member m3=10.0.0.3 --member m3=etcd3.example.com
kvorum cert make --dir pki --member m1=10.0.0.1 --algorithm rsa-2048 --csr`,
  flags: [
    ...SET_FLAGS,
    { name: "csr", kind: "bool", value: false, usage: "write keys and signing requests for an authority elsewhere" },
    FORMAT,
  ],
  async run(context, { flags, args }) {
    noArguments(args, "cert make");
    const options = setOptions(context, flags, flags.bool("csr"));
    const steps = await makeSet(options, nowOf(context));
    tellSteps(context, steps, options.dir, isJson(flags));
  },
};

const importCommand: DeployCommand = {
  name: "import",
  usage: "CERTIFICATE-FILE...",
  short: "Takes certificates that an authority elsewhere has signed, each to its key",
  flags: [...SET_FLAGS, { name: "cacert", kind: "string", value: "", usage: "certificate of that authority" }, FORMAT],
  required: ["cacert"],
  run(context, { flags, args }) {
    if (args.length === 0) throw new DeployError("cert import needs the files of the signed certificates");
    const options = setOptions(context, flags, true);
    const read = (path: string) => ({ path, pem: readRequired(resolve(context.cwd, path), "cert import") });
    const authority = read(flags.string("cacert")).pem;
    const steps = importCertificates(options, authority, args.map(read), nowOf(context));
    tellSteps(context, steps, options.dir, isJson(flags));
  },
};

const show: DeployCommand = {
  name: "show",
  usage: "FILE-OR-DIRECTORY...",
  short: "Shows what certificates say, and what is wrong with them",
  long: `Shows what certificates say: for whom, for which names and uses, from whom, until when. Exit codes: 0 all is well,
1 warnings (such as an end that is near), 2 problems, 3 a file cannot be read.`,
  flags: [
    { name: "warn-days", kind: "uint", value: RENEW_DAYS, usage: "warn of what ends within so many days" },
    FORMAT,
  ],
  run(context, { flags, args }) {
    if (args.length === 0) throw new DeployError("cert show needs a certificate or a directory of them");
    const found = args.flatMap((path) => certificateFiles(resolve(context.cwd, path), path));
    if (found.length === 0) throw new DeployError(`there are no certificates in ${args.join(", ")}`);
    const cards = found.flatMap(({ path, shown }) => cardsOf(context, path, shown, flags.number("warn-days")));
    context.out(isJson(flags) ? `${JSON.stringify(cards, null, 2)}\n` : cardsText(cards));
    endWith(cards.flatMap(({ remarks }) => remarks));
  },
};

const check: DeployCommand = {
  name: "check",
  short: "Makes a handshake with each endpoint, and says in words why one fails",
  flags: [
    { name: "endpoints", kind: "strings", value: ["https://127.0.0.1:2379"], usage: "where the members serve clients" },
    { name: "cacert", kind: "string", value: "", usage: "authority of the servers' certificates" },
    { name: "cert", kind: "string", value: "", usage: "client certificate" },
    { name: "key", kind: "string", value: "", usage: "its key" },
    { name: "warn-days", kind: "uint", value: RENEW_DAYS, usage: "warn of what ends within so many days" },
    FORMAT,
  ],
  async run(context, { flags }) {
    const tls = tlsOf(context, flags);
    const shakes = await Promise.all(
      flags.strings("endpoints").map((endpoint) => shakeHands(endpoint, tls, PROBE_MS, context.clock)),
    );
    const results = shakes.map((shake) => resultOf(context, shake, flags.number("warn-days")));
    if (isJson(flags)) context.out(`${JSON.stringify(results, null, 2)}\n`);
    else for (const result of results) context.out(resultText(result));
    endWith(results.flatMap(({ remarks }) => remarks));
  },
};

const revoke: DeployCommand = {
  name: "revoke",
  usage: "CERTIFICATE-FILE...",
  short: "Adds certificates to the revocation list ca.crl, for --client-crl-file and --peer-crl-file",
  flags: [{ name: "dir", kind: "string", value: "pki", usage: "directory of the certificates" }],
  async run(context, { flags, args }) {
    if (args.length === 0) throw new DeployError("cert revoke needs the files of the certificates");
    const dir = resolve(context.cwd, flags.string("dir"));
    const { cert, key } = authorityPair(dir);
    const what = "only the authority can revoke";
    const authority = Authority.parse(readRequired(cert, what), cert, readRequired(key, what), key);
    const revoked = revokedIn(dir);
    for (const path of args) {
      const pem = readRequired(resolve(context.cwd, path), "cert revoke");
      const certificate = new X509Certificate(firstCertificate(pem, path));
      if (!certificate.checkIssued(authority.certificate))
        throw new DeployError(`${path} was not signed by ${cert}: its own authority must revoke it`);
      if (revoked.some(({ serial }) => serial === certificate.serialNumber)) continue;
      revoked.push({ serial: certificate.serialNumber, revokedMs: context.clock.wallMs() });
    }
    writeWhole(revokedPath(dir), `${JSON.stringify(revoked, null, 2)}\n`, SECRET_MODE);
    writeWhole(revocationListPath(dir), await authority.revocationList(revoked, nowOf(context)));
    context.out(
      `${revocationListPath(dir)} revokes ${revoked.length}. Copy it to the members; they read it again when it changes.\n`,
    );
  },
};

export const certCommand: DeployCommand = {
  name: "cert",
  short: "Certificates: make, import, show, check, revoke",
  commands: [make, importCommand, show, check, revoke],
};

function setOptions(context: Context, flags: GivenFlags, signsElsewhere: boolean): SetOptions {
  const members = new Map<string, string[]>();
  for (const text of flags.strings("member")) {
    const [, name, address] = /^([^=]+)=(.+)$/.exec(text) ?? [];
    if (name === undefined || address === undefined)
      throw new DeployError(`--member ${text} is not NAME=ADDRESS, such as m1=10.0.0.1`);
    checkName(name, "member");
    members.set(name, [...(members.get(name) ?? []), checkAddress(address)]);
  }
  const more = ["127.0.0.1", "localhost", ...flags.strings("name").map(checkAddress)];
  return {
    dir: resolve(context.cwd, flags.string("dir")),
    members: new Map([...members].map(([name, names]) => [name, [...new Set([...names, ...more])]])),
    clients: flags.strings("client").map((name) => checkName(name, "client")),
    isShared: flags.bool("shared"),
    algorithm: keyAlgorithm(flags.string("algorithm")),
    days: flags.number("days"),
    authorityDays: flags.number("ca-days"),
    renewDays: flags.number("renew-days"),
    clusterName: flags.string("cluster"),
    signsElsewhere,
  };
}

/** It becomes the name of a file. */
function checkName(name: string, what: string): string {
  if (/^[\w][\w.@-]*$/.test(name)) return name;
  throw new DeployError(`${what} name ${JSON.stringify(name)} may have letters, digits and . _ @ - only`);
}

function checkAddress(address: string): string {
  if (!address.includes("/") && !/^[^:]*:\d+$/.test(address)) return address;
  throw new DeployError(`${address} is not an address or a DNS name: certificates name hosts, without scheme and port`);
}

function noArguments(args: readonly string[], what: string): void {
  if (args.length > 0) throw new DeployError(`${what} takes flags only, not ${args.join(" ")}`);
}

const nowOf = ({ clock, random }: Context) => ({ nowMs: clock.wallMs(), random });

function tellSteps(context: Context, steps: readonly Step[], dir: string, json: boolean): void {
  if (json) return context.out(`${JSON.stringify(steps, null, 2)}\n`);
  for (const { action, file, why } of steps)
    context.out(`${action.padEnd(9)} ${file}${why === undefined ? "" : ` (it was: ${why})`}\n`);
  if (steps.some(({ action }) => action === "requested"))
    context.out(`Let the authority sign the .csr files in ${dir}, then: kvorum cert import --cacert CA FILE...\n`);
}

interface Card {
  readonly file: string;
  readonly subject: string;
  readonly issuer: string;
  readonly serial: string;
  readonly key: string;
  readonly uses: readonly string[];
  readonly names: readonly string[];
  readonly validTo: string;
  readonly daysLeft: number;
  readonly remarks: readonly Remark[];
}

function cardOf(certificate: X509Certificate, file: string, nowMs: number, remarks: readonly Remark[]): Card {
  return {
    file,
    subject: oneLine(certificate.subject),
    issuer: oneLine(certificate.issuer),
    serial: certificate.serialNumber,
    key: describeKey(certificate.publicKey),
    uses: usagesOf(certificate),
    names: namesOf(certificate),
    validTo: new Date(Date.parse(certificate.validTo)).toISOString(),
    daysLeft: daysLeft(certificate, nowMs),
    remarks,
  };
}

function cardsOf({ clock }: Context, path: string, shown: string, warnDays: number): Card[] {
  const nowMs = clock.wallMs();
  const pem = readRequired(path, "cert show");
  firstCertificate(pem, path);
  const keyPath = path.replace(/\.[^./]+$/, path.endsWith(".pem") ? "-key.pem" : ".key");
  const keyText = keyPath === path ? undefined : readText(keyPath);
  return certificatesOf(pem).map((text, i) => {
    const certificate = new X509Certificate(text);
    const isLeaf = i === 0 && keyText !== undefined;
    const purpose = usagesOf(certificate).join() === "client" ? { purpose: "client" as const } : {};
    const remarks = remarksOn(certificate, {
      nowMs,
      warnDays,
      ...purpose,
      ...(isLeaf ? { key: parseKey(keyText, keyPath) } : {}),
    });
    if (isLeaf && (statSync(keyPath).mode & 0o077) !== 0)
      remarks.push({ level: "warning", text: `others may read ${keyPath}: chmod 600 ${keyPath}` });
    return cardOf(certificate, shown, nowMs, remarks);
  });
}

function certificateFiles(path: string, shown: string): { path: string; shown: string }[] {
  try {
    if (!statSync(path).isDirectory()) return [{ path, shown }];
    return readdirSync(path, { recursive: true, encoding: "utf8" })
      .sort()
      .map((name) => ({ path: join(path, name), shown: join(shown, name) }))
      .filter(({ path: each }) => /\.(crt|pem|cer)$/.test(each) && (readText(each)?.includes("CERTIFICATE-") ?? false));
  } catch (error) {
    throw new DeployError(systemText(error));
  }
}

const cardsText = (cards: readonly Card[]): string =>
  renderTable(
    ["file", "subject", "uses", "names", "key", "days left"],
    cards.map((card) => [
      card.file,
      card.subject,
      card.uses.join(" "),
      card.names.join(" "),
      card.key,
      `${card.daysLeft}`,
    ]),
  ) + cards.flatMap(({ file, remarks }) => remarks.map((remark) => remarkText(file, remark))).join("");

const remarkText = (what: string, { level, text }: Remark): string => `${level}: ${what}: ${text}\n`;

interface CheckResult {
  readonly endpoint: string;
  readonly certificate: Card | undefined;
  readonly remarks: readonly Remark[];
  readonly advice: string | undefined;
}

function resultOf({ clock }: Context, shake: Handshake, warnDays: number): CheckResult {
  const { endpoint, certificate, trouble, advice } = shake;
  const nowMs = clock.wallMs();
  const seen = certificate === undefined ? [] : remarksOn(certificate, { nowMs, warnDays, purpose: "server" });
  const remarks: Remark[] = trouble === undefined ? [] : [{ level: "problem", text: trouble.text }];
  remarks.push(...seen.filter(({ level }) => level === "warning"));
  const card = certificate && cardOf(certificate, endpoint, nowMs, remarks);
  return { endpoint, certificate: card, remarks, advice };
}

function resultText({ endpoint, certificate, remarks, advice }: CheckResult): string {
  const about =
    certificate === undefined
      ? ""
      : `  certificate of ${certificate.subject} by ${certificate.issuer}, ${certificate.daysLeft} days left\n` +
        `  valid for ${certificate.names.join(", ") || "no names"}\n`;
  const failed = remarks.some(({ level }) => level === "problem");
  const lines = remarks.map(({ level, text }) => `  ${level}: ${text}\n`).join("");
  const what = advice === undefined ? "" : `  what to do: ${advice}\n`;
  return `${endpoint}: ${failed ? "the handshake fails" : "the handshake succeeds"}\n${about}${lines}${what}`;
}

/** Throws when the exit code is not 0; the text has been printed. */
function endWith(remarks: readonly Remark[]): void {
  if (remarks.some(({ level }) => level === "problem")) throw new DeployError("", EXIT.problems);
  if (remarks.length > 0) throw new DeployError("", EXIT.warnings);
}

function tlsOf({ cwd }: Context, flags: GivenFlags): TlsOptions {
  const read = (flag: string) => {
    const path = flags.string(flag);
    return path === "" ? undefined : Buffer.from(readRequired(resolve(cwd, path), `--${flag}`));
  };
  const [ca, cert, key] = [read("cacert"), read("cert"), read("key")];
  if ((cert === undefined) !== (key === undefined)) throw new DeployError("give both --cert and --key, or none");
  return { ...(ca && { ca }), ...(cert && key && { cert, key }) };
}

/** A list that cannot be read must not be replaced by a shorter one. */
function revokedIn(dir: string): Revocation[] {
  const path = revokedPath(dir);
  const text = readText(path);
  if (text === undefined) return [];
  try {
    const list: unknown = JSON.parse(text);
    if (Array.isArray(list)) return list.map(revocation);
  } catch {
    // Told below.
  }
  throw new DeployError(
    `${relative(process.cwd(), path) || path} cannot be read: restore it, or what it revoked is accepted`,
  );
}

function revocation(entry: { serial?: unknown; revokedMs?: unknown }): Revocation {
  const { serial, revokedMs } = entry;
  if (typeof serial === "string" && typeof revokedMs === "number") return { serial, revokedMs };
  throw new TypeError("not a revocation");
}
