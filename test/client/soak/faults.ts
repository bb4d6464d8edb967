/** What happens to the members of a soak, one after the other. */
import { setTimeout as sleep } from "node:timers/promises";
import { KVService } from "../../../src/proto/etcdserverpb.ts";
import type { Cluster, Member } from "../../harness/cluster.ts";
import type { SeededRandom } from "../../harness/random.ts";
import type { Work } from "./work.ts";

export interface Stage {
  readonly cluster: Cluster;
  readonly work: Work;
  readonly random: SeededRandom;
}

interface Fault {
  readonly name: string;
  /** Needs stock etcd of this version. */
  readonly both?: boolean;
  run(stage: Stage, member: Member): Promise<void>;
}

const someTime = (random: SeededRandom, mostMs: number): Promise<void> => sleep(200 + random.below(mostMs));

export const FAULTS: readonly Fault[] = [
  {
    name: "killed",
    async run({ random }, member) {
      await member.kill("SIGKILL");
      await someTime(random, 4000);
      await member.start();
    },
  },
  {
    name: "restarted",
    async run({ random }, member) {
      await member.kill("SIGTERM");
      await someTime(random, 1000);
      await member.start();
    },
  },
  {
    name: "frozen",
    async run({ random }, member) {
      member.signal("SIGSTOP");
      try {
        await someTime(random, 7000);
      } finally {
        member.signal("SIGCONT");
      }
    },
  },
  {
    name: "frozen for moments",
    async run({ random }, member) {
      for (let i = 0; i < 5; i++) {
        member.signal("SIGSTOP");
        await sleep(random.below(700));
        member.signal("SIGCONT");
        await sleep(random.below(700));
      }
    },
  },
  {
    name: "made the leader",
    async run({ cluster }, member) {
      await cluster.lead(member);
    },
  },
  {
    name: "history compacted",
    async run({ work }, member) {
      if (work.seenByAll > 1) await compact(member, work.seenByAll);
    },
  },
  {
    name: "replaced",
    async run({ cluster, work }, member) {
      const kind = member.kind;
      await cluster.remove(member);
      const added = await cluster.add(kind, { learner: true });
      await cluster.promote(added);
      work.moved(cluster.all.map(({ url }) => url));
    },
  },
  {
    name: "changed between kvorum and stock",
    both: true,
    run: (_, member) => member.become(member.kind === "ours" ? "stock" : "ours"),
  },
];

async function compact(member: Member, revision: number): Promise<void> {
  await member.client.unary(KVService.Compact, { revision, physical: false }, { timeoutMs: 10_000 });
}
