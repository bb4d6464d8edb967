/**
 * A member's messages must not promise what is not durable: entries it acknowledges, the term it answers in, the vote
 * it gives. The log is observed as it is written; the disk tells what would survive a power loss. So a premature
 * promise is found when it is made, not only if the power fails at the right moment.
 */
import { type Message, MessageType } from "../../src/proto/raftpb.ts";
import type { RawNode } from "../../src/raft/rawnode.ts";
import type { SimDisk } from "./disk.ts";
import { readLog } from "./log-on-disk.ts";
import type { Running, SimMachine } from "./machine.ts";

/** A log write that was not durable at the last check. */
interface Written {
  /** Its first entry; Infinity without one. */
  readonly firstIndex: number;
  /** The term in which the member was. */
  readonly inTerm: number;
  /** The term of its hard state, if term or vote were new; otherwise Infinity. */
  readonly term: number;
  readonly isDurable: () => boolean;
}

export class Promises {
  readonly #found: (checker: string, message: string) => void;
  /** By machine, oldest first. */
  readonly #written = new Map<string, Written[]>();
  readonly #disks = new Map<string, SimDisk>();

  constructor(found: (checker: string, message: string) => void) {
    this.#found = found;
  }

  /** Observes the log of a member that starts. What it has read is durable. */
  observe(machine: SimMachine, { parts }: Running): void {
    const written: Written[] = [];
    this.#written.set(machine.name, written);
    const { disk } = machine;
    this.#disks.set(machine.name, disk);
    const { wal, walDir } = parts;
    let { term, vote } = parts.storage.initialState().hardState ?? { term: 0, vote: 0n };
    const append = wal.append.bind(wal);
    wal.append = (hardState, entries) => {
      append(hardState, entries);
      const isNew = hardState !== undefined && (hardState.term !== term || hardState.vote !== vote);
      if (hardState !== undefined) ({ term, vote } = hardState);
      if (!isNew && entries.length === 0) return;
      written.push({
        firstIndex: entries[0]?.index ?? Number.POSITIVE_INFINITY,
        inTerm: term,
        term: isNew ? term : Number.POSITIVE_INFINITY,
        isDurable: disk.durability(walDir),
      });
    };
  }

  /**
   * A member sends a message. The acknowledgement of a write may leave after another leader has replaced its entries: it
   * carries the old term, and only writes of that term are what it promises. The old leader cannot commit with it, for
   * a majority that had these entries would have elected nobody without them.
   */
  sent(machine: string, { type, reject, term, index, to }: Message): void {
    if (reject || (type !== MessageType.MsgAppResp && type !== MessageType.MsgVoteResp)) return;
    for (const write of this.#pending(machine)) {
      if (write.term <= term) {
        this.#found("durability", `${machine} answers ${to.toString(16)} in term ${term}, which a crash would undo`);
      } else if (type === MessageType.MsgAppResp && write.firstIndex <= index && write.inTerm <= term) {
        const what = `acknowledges ${index} to ${to.toString(16)}`;
        this.#found("durability", `${machine} ${what}, but entry ${write.firstIndex} is not on its disk`);
      } else continue;
      return;
    }
    if (type === MessageType.MsgVoteResp) this.#checkVote(machine, term, to);
  }

  /** Everything that was written is durable: the log must have the vote, or a restart would give another. */
  #checkVote(machine: string, term: number, to: bigint): void {
    const disk = this.#disks.get(machine);
    const log = disk === undefined ? undefined : readLog(disk);
    // Damaged meanwhile: the next start will show it.
    if (log === undefined || log.isTorn) return;
    // In a later term it will not vote in this one again.
    if (log.term > term || (log.term === term && log.vote === to)) return;
    const found = `its log has term ${log.term} and vote ${log.vote.toString(16)}`;
    this.#found("durability", `${machine} votes for ${to.toString(16)} in term ${term}, but ${found}`);
  }

  /** Entries that raft considers stable here count for commits, and are applied. */
  check(machine: string, node: RawNode): void {
    const written = this.#written.get(machine);
    if (written === undefined || written.length === 0) return;
    const stable = node.raft.log.unstable.offset - 1;
    const lost = this.#pending(machine).find(({ firstIndex }) => firstIndex <= stable);
    if (lost === undefined) return;
    this.#found("durability", `${machine} counts on ${stable}, but entry ${lost.firstIndex} is not on its disk`);
    written.length = 0;
  }

  #pending(machine: string): Written[] {
    const written = this.#written.get(machine) ?? [];
    while (written[0]?.isDurable() === true) written.shift();
    return written;
  }
}
