/**
 * What only a trial tells of a host on which no member runs yet: whether it reaches the others' ports, and how long its disk
 * takes until a write is safe. Leaves nothing behind.
 */
import type { Context } from "../common/context.ts";
import type { Inventory, Member } from "../inventory/inventory.ts";
import { runOn, word } from "./shell.ts";

export interface Probes {
  /** `ADDRESS:PORT` of members whose packets are dropped or rejected on the way. */
  readonly unreachable: readonly string[];
  /** Milliseconds of one small write until it is safe; undefined where it could not be tried. */
  readonly syncMs: number | undefined;
}

const CONNECT_S = 3;
const SYNC_WRITES = 50;
const MS = 1_000;

export async function probe(context: Context, inventory: Inventory, member: Member): Promise<Probes> {
  const { members, clientPort, peerPort, dataDir, walDir } = inventory;
  const targets = members
    .filter((each) => each !== member)
    .flatMap(({ address }) => [clientPort, peerPort].map((port) => ({ address, port })));
  // A port at which nothing listens yet refuses at once, and can be reached. A connection needs bash, which may be missing.
  const connects = targets.map(({ address, port }) => {
    const shown = word(`unreachable\t${address.includes(":") ? `[${address}]` : address}:${port}`);
    return `(said=$(timeout ${CONNECT_S} bash -c ${word(`: < /dev/tcp/${address}/${port}`)} 2>&1) || {
  code=$?
  case "$code $said" in 124*|*"No route to host"*|*rohibited*|*unreachable*) printf '%s\\n' ${shown} ;; esac
}) &\n`;
  });
  const script = `if command -v bash >/dev/null && command -v timeout >/dev/null; then
${connects.join("")}wait
fi
at=${word(walDir ?? dataDir)}
while [ ! -d "$at" ]; do at=$(dirname "$at"); done
trial="$at/.kvorum-trial.$$"
began=$(date +%s%N)
if dd if=/dev/zero of="$trial" bs=2048 count=${SYNC_WRITES} oflag=dsync 2>/dev/null; then
  printf 'sync\\t%s\\n' $(( $(date +%s%N) - began ))
fi
rm -f "$trial"
`;
  const lines = (await runOn(context, member.ssh, script)).split("\n").map((line) => line.split("\t"));
  const sync = lines.find(([name]) => name === "sync")?.[1];
  return {
    unreachable: lines.filter(([name]) => name === "unreachable").map(([, target]) => target!),
    syncMs: sync === undefined ? undefined : Number(sync) / SYNC_WRITES / MS / MS,
  };
}
