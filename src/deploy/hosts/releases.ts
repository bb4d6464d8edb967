/**
 * Programs that are copied to hosts: one file, or an archive of kvorum's or stock's programs. On a host each has a directory
 * named by its checksum, beside those of other versions, so that bringing it there touches nothing that runs; the program's
 * path is a link to one of them.
 */
import { createHash, createPublicKey, verify } from "node:crypto";
import { readFileSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { systemText } from "../../base/system-error.ts";
import { DeployError } from "../common/context.ts";
import { readText } from "../common/files.ts";
import type { Inventory } from "../inventory/inventory.ts";
import { word } from "./shell.ts";

export interface Release {
  /** The local file. */
  readonly path: string;
  readonly content: Buffer;
  readonly isArchive: boolean;
  /** Names its directory. */
  readonly id: string;
}

const ID_LENGTH = 16;
const GO_ARCH: Readonly<Record<string, string>> = { x64: "amd64", arm64: "arm64" };

/** `uname -m` -> as Node names it. */
export const architectureOf = (machine: string): string =>
  machine === "x86_64" ? "x64" : machine === "aarch64" ? "arm64" : machine;

/** What is copied to a host of this architecture; undefined when the inventory names nothing. Throws DeployError. */
export function releaseFor({ copy, signedBy }: Inventory, arch: string): Release | undefined {
  if (copy === undefined) return undefined;
  const path = copy.replaceAll("{arch}", arch).replaceAll("{goarch}", GO_ARCH[arch] ?? arch);
  const known = read.get(path);
  if (known !== undefined) return known;
  let content: Buffer;
  try {
    content = readFileSync(path);
  } catch (error) {
    throw new DeployError(`the program to copy: ${systemText(error)}`);
  }
  const digest = createHash("sha256").update(content).digest("hex");
  checkSum(path, digest, signedBy);
  const release = { path, content, isArchive: /\.(tar\.gz|tgz)$/.test(path), id: digest.slice(0, ID_LENGTH) };
  read.set(path, release);
  return release;
}

/** Read once in a run: an operation that has begun with a program goes on with the same. */
const read = new Map<string, Release>();

/** Against the SHA256SUMS beside it: when there is one, or when it must be signed. */
function checkSum(path: string, digest: string, signedBy: string | undefined): void {
  const sums = join(dirname(path), "SHA256SUMS");
  const text = readText(sums);
  if (signedBy !== undefined) checkSignature(sums, text, signedBy);
  if (text === undefined) return;
  const lines = text.split("\n").map((line) => line.split(/\s+\*?/));
  const sum = lines.find(([, name]) => name === basename(path))?.[0];
  if (sum === undefined && signedBy === undefined) return;
  if (sum !== digest) {
    const why = sum === undefined ? "does not stand there" : `is ${digest} where ${sum} is expected`;
    throw new DeployError(
      `${path} is not what ${sums} promises: its checksum ${why}. Take the file from its source again`,
    );
  }
}

function checkSignature(sums: string, text: string | undefined, signedBy: string): void {
  const signature = readText(`${sums}.sig`);
  const key = readText(signedBy);
  if (key === undefined) throw new DeployError(`signed-by: ${signedBy} does not exist`);
  if (text === undefined || signature === undefined)
    throw new DeployError(`${sums} and ${sums}.sig are not both there: what signed-by asks for comes with the archive`);
  let isGood = false;
  try {
    isGood = verify(null, Buffer.from(text), createPublicKey(key), Buffer.from(signature, "base64"));
  } catch (error) {
    throw new DeployError(`signed-by: ${signedBy} is not a public key that can be used: ${systemText(error)}`);
  }
  if (!isGood)
    throw new DeployError(
      `${sums} was not signed with the key ${signedBy}: take archive and checksums from their source again, or correct signed-by`,
    );
}

export const releaseDir = ({ releasesDir }: Inventory, { id }: Release): string => `${releasesDir}/${id}`;

/** Reads the release from its input. Interrupted, it leaves nothing that counts. */
export function installScript(inventory: Inventory, release: Release): string {
  const dir = releaseDir(inventory, release);
  const fresh = word(`${dir}.new`);
  const take = release.isArchive
    ? `tar -xzf "$new/input" -C "$new" --strip-components=1
if [ ! -e "$new/bin/etcd" ]; then mkdir -p "$new/bin"; for each in etcd etcdctl etcdutl; do [ ! -f "$new/$each" ] || mv "$new/$each" "$new/bin/"; done; fi
[ -x "$new/bin/etcd" ] || { echo "there is no program etcd in the archive" >&2; exit 1; }
rm "$new/input"`
    : `mkdir "$new/bin"; mv "$new/input" "$new/bin/etcd"`;
  return `umask 022
new=${fresh}
rm -rf "$new"
mkdir -p "$new"
cat > "$new/input"
sum=$(sha256sum < "$new/input" | cut -c1-${ID_LENGTH})
[ "$sum" = ${release.id} ] || { echo "the program arrived damaged" >&2; exit 1; }
${take}
chown -R root:root "$new"
chmod -R u=rwX,go=rX "$new"
chmod 755 "$new/bin/"*
rm -rf ${word(dir)}
mv "$new" ${word(dir)}
`;
}

/** Makes the program's path a link to the release, in one step. */
export function linkScript(inventory: Inventory, release: Release): string {
  const fresh = word(`${inventory.program}.new`);
  return `mkdir -p "$(dirname ${word(inventory.program)})"
rm -f ${fresh}
ln -s ${word(`${releaseDir(inventory, release)}/bin/etcd`)} ${fresh}
mv -T ${fresh} ${word(inventory.program)}
${toolLinks(inventory, release)}`;
}

/** The other programs beside it, under their own names; what is there and no link of ours stays. */
function toolLinks({ program, releasesDir }: Inventory, { id }: Release): string {
  if (basename(program) !== "etcd") return "";
  return `for each in etcdctl etcdutl kvorum; do
  from=${word(`${releasesDir}/${id}/bin`)}/$each
  at=${word(dirname(program))}/$each
  case "$(readlink "$at" || true)" in ${word(`${releasesDir}/`)}*) rm "$at" ;; esac
  if [ -e "$from" ] && [ ! -e "$at" ]; then ln -s "$from" "$at"; fi
done
`;
}
