/** The faults: each causes its trouble repeatedly until the run's time is over, and leaves the cluster intact. */
import { randomInt } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Member } from "../harness/cluster.ts";
import { waitFor } from "../harness/wait.ts";
import { clocksMissing, WallClock } from "./clocks.ts";
import { disksMissing, SlowDisk, SmallDisk, slowDisksMissing } from "./disks.ts";
import { hostsMissing } from "./hosts.ts";
import { loseMajorityAndForce, loseMajorityAndRestore, restoreMissing } from "./majority.ts";
import { type Fault, type Run, type Site, specOf } from "./run.ts";

type Pick = (run: Run) => Promise<Member>;

const leader: Pick = ({ cluster }) => cluster.leader();
const follower: Pick = async ({ cluster }) => {
  const leads = await cluster.leader();
  const others = cluster.running.filter((member) => member !== leads);
  return others[randomInt(others.length)]!;
};
const anyone: Pick = async ({ cluster }) => cluster.running[randomInt(cluster.running.length)]!;

const hosts = { hosts: true, missing: hostsMissing } as const;

export const FAULTS: readonly Fault[] = [
  {
    name: "none",
    what: "nothing, to compare with",
    inflict: (run) => run.pass(run.settings.seconds * 1000),
  },
  { name: "kill-leader", what: "kill -9 of the leader, back after half a second", inflict: killer(leader) },
  { name: "kill-follower", what: "kill -9 of a follower", inflict: killer(follower) },
  { name: "kill-random", what: "kill -9 of a random member", inflict: killer(anyone) },
  {
    name: "kill-all",
    what: "kill -9 of all members at one time",
    async inflict(run) {
      while (!run.isOver) {
        const all = [...run.cluster.running];
        run.hit(...all);
        await Promise.all(all.map((member) => member.kill("SIGKILL")));
        for (const member of all) member.spawn();
        run.healed();
        await Promise.all(all.map((member) => member.healthy()));
        await run.recovered();
        await run.pass(1_000);
      }
    },
  },
  {
    name: "pause-leader",
    what: "SIGSTOP of the leader for 3 s, three election timeouts, then SIGCONT",
    inflict: pauser(leader),
  },
  { name: "pause-follower", what: "the same with a follower", inflict: pauser(follower) },
  {
    name: "rolling-restart",
    what: "SIGTERM and start of one member after the other; the leader hands over",
    async inflict(run) {
      do {
        for (const member of [...run.cluster.all]) {
          run.hit(member);
          await member.kill("SIGTERM");
          member.spawn();
          run.healed();
          await member.healthy();
          await run.recovered();
        }
      } while (!run.isOver);
    },
  },
  {
    name: "partition-leader",
    what: "the leader is cut from all members for 3 s, but not from its clients",
    ...hosts,
    inflict: cutter(leader, async (run, member) => {
      const others = run.cluster.all.filter((other) => other !== member).map((other) => run.hostOf(other));
      await run.hosts.part([run.hostOf(member)], others);
      return [member];
    }),
  },
  {
    name: "partition-minority",
    what: "as many followers as the cluster can do without are cut off together for 3 s",
    ...hosts,
    inflict: cutter(leader, async (run, member) => {
      const followers = run.cluster.all.filter((other) => other !== member);
      const minority = followers.slice(0, (run.cluster.all.length - 1) / 2);
      const majority = run.cluster.all.filter((other) => !minority.includes(other));
      await run.hosts.part(
        minority.map((other) => run.hostOf(other)),
        majority.map((other) => run.hostOf(other)),
      );
      return minority;
    }),
  },
  {
    name: "deaf-leader",
    what: "for 3 s the leader hears nothing from the others, who hear it",
    ...hosts,
    inflict: cutter(leader, async (run, member) => {
      for (const other of run.cluster.all) {
        if (other !== member) await run.hosts.cutOneWay(run.hostOf(other), run.hostOf(member));
      }
      return [member];
    }),
  },
  {
    name: "mute-leader",
    what: "for 3 s the others hear nothing from the leader, who hears them",
    ...hosts,
    inflict: cutter(leader, async (run, member) => {
      for (const other of run.cluster.all) {
        if (other !== member) await run.hosts.cutOneWay(run.hostOf(member), run.hostOf(other));
      }
      return [member];
    }),
  },
  {
    name: "bridge",
    what: "two halves that cannot reach each other, and one member that reaches both, for 3 s",
    ...hosts,
    membersMin: 5,
    inflict: cutter(anyone, async (run, between) => {
      const others = run.cluster.all.filter((other) => other !== between).map((other) => run.hostOf(other));
      await run.hosts.part(others.slice(0, 2), others.slice(2));
      return [...run.cluster.all];
    }),
  },
  {
    name: "unplug-leader",
    what: "the cable of the leader's host is out for 3 s: neither members nor clients reach it",
    ...hosts,
    inflict: cutter(leader, async (run, member) => {
      await run.hosts.plug(run.hostOf(member), false);
      return [member];
    }),
  },
  {
    name: "weather",
    what: "all packets between members take 100 ± 20 ms one way, and 5 % of them are lost",
    ...hosts,
    async inflict(run) {
      run.hit();
      await run.hosts.weather({ delayMs: 100, jitterMs: 20, loss: 5 });
      while (!run.isOver) await run.pass(100);
      await run.hosts.heal();
      run.healed();
    },
  },
  {
    name: "full-disk",
    what: "nothing is left on one member's disk for 3 s",
    load: { valueSize: 8_000, rate: 30 },
    missing: disksMissing,
    prepare: () => new DiskSite(() => new SmallDisk(260)),
    inflict: fillDisk,
  },
  {
    name: "slow-disk",
    what: "10 writes a second on the disk of the leader, then of a follower, for 4 s each",
    missing: slowDisksMissing,
    prepare: () => new DiskSite(() => new SlowDisk(512)),
    inflict: slowDown,
  },
  {
    name: "clock-steps",
    what: "the wall clock of the leader, then of a follower, steps by hours to and fro",
    missing: clocksMissing,
    prepare: () => new ClockSite(),
    inflict: stepClocks,
  },
  {
    name: "replace-minority",
    what: "as many members as the cluster can do without are lost with their disks and replaced",
    spareHosts: 2,
    inflict: replaceMinority,
  },
  {
    name: "majority-restore",
    what: "all members are lost with their disks; the cluster is restored from a backup",
    missing: restoreMissing,
    inflict: loseMajorityAndRestore,
  },
  {
    name: "majority-force",
    what: "the majority is lost; a survivor goes on with --force-new-cluster and takes in new members",
    spareHosts: 4,
    inflict: loseMajorityAndForce,
  },
];

function killer(pick: Pick): Fault["inflict"] {
  return async (run) => {
    while (!run.isOver) {
      const member = await pick(run);
      run.hit(member);
      await member.kill("SIGKILL");
      await run.pass(500);
      member.spawn();
      run.healed();
      await member.healthy();
      await run.recovered();
      await run.pass(randomInt(1_000));
    }
  };
}

function pauser(pick: Pick): Fault["inflict"] {
  return async (run) => {
    while (!run.isOver) {
      const member = await pick(run);
      run.hit(member);
      member.signal("SIGSTOP");
      await run.pass(3_000);
      member.signal("SIGCONT");
      run.healed();
      await run.recovered();
      await run.pass(500);
    }
  };
}

/** Cuts links, for 3 s at a time. `cut` returns the members affected. */
function cutter(pick: Pick, cut: (run: Run, member: Member) => Promise<Member[]>): Fault["inflict"] {
  return async (run) => {
    while (!run.isOver) {
      const member = await pick(run);
      run.hit(...(await cut(run, member)));
      await run.pass(3_000);
      await run.hosts.heal();
      run.healed();
      await run.recovered();
      await run.pass(500);
    }
  };
}

/** A disk for each of the first two members. */
class DiskSite<Disk extends SmallDisk | SlowDisk> implements Site {
  readonly disks: readonly Disk[];

  constructor(make: () => Disk) {
    this.disks = [make(), make()];
  }

  spec(index: number): { dataDir?: string } {
    const disk = this.disks[index];
    return disk === undefined ? {} : { dataDir: join(disk.path, "data") };
  }

  close(): void {
    for (const disk of this.disks) disk.close();
  }
}

/** First a follower's, then the leader's. */
async function fillDisk(run: Run): Promise<void> {
  const { disks } = run.site as DiskSite<SmallDisk>;
  for (let round = 0; round < 2; round++) {
    const member = run.cluster.all[round]!;
    const disk = disks[round]!;
    await run.cluster.lead(run.cluster.all[1]!);
    const before = member.log().length;
    run.hit(member);
    disk.fill();
    // The file system's reserved space is used up after a while.
    for (let i = 0; i < 30 && member.running; i++) {
      await run.pass(100);
      disk.fill();
    }
    disk.makeRoom();
    const said = member.log().slice(before);
    const lines = said.split("\n").filter((each) => /no space|ENOSPC|disk is full/i.test(each));
    const line = lines.find((each) => each.startsWith("{")) ?? lines[0];
    const role = round === 0 ? "follower" : "leader";
    if (!member.running && line === undefined) run.problem(`${member.name} ended on a full disk without saying so`);
    run.note(
      `the ${role} with the full disk ${member.running ? "went on" : "ended"}${line === undefined ? "" : `, saying: ${line.slice(0, 300)}`}`,
    );
    run.healed();
    await backAgain(member);
    await run.recovered();
  }
}

/** Starts a member that has ended, or that ends during the check. */
async function backAgain(member: Member): Promise<void> {
  if (!member.running) member.spawn();
  try {
    await member.healthy();
  } catch (error) {
    if (member.running) throw error;
    member.spawn();
    await member.healthy();
  }
}

async function slowDown(run: Run): Promise<void> {
  const { disks } = run.site as DiskSite<SlowDisk>;
  for (const [i, disk] of disks.entries()) disk.adopt(run.cluster.all[i]!.pid);
  for (const target of [0, 1]) {
    const member = run.cluster.all[0]!;
    await run.cluster.lead(run.cluster.all[target]!);
    run.hit(member);
    disks[0]!.limit(10);
    await run.pass(4_000);
    disks[0]!.limit(0);
    run.healed();
    await run.recovered();
  }
}

/** A wall clock for each member. */
class ClockSite implements Site {
  readonly #home = mkdtempSync(join(tmpdir(), "kvorum-clocks-"));
  readonly clocks = new Map<number, WallClock>();

  spec(index: number): { env: Record<string, string>; args: string[] } {
    const clock = new WallClock(join(this.#home, `${index}`));
    this.clocks.set(index, clock);
    // So long that a busy machine causes no election.
    return { env: clock.env, args: ["--election-timeout", "3000", "--heartbeat-interval", "200"] };
  }

  close(): void {
    rmSync(this.#home, { recursive: true, force: true });
  }
}

async function stepClocks(run: Run): Promise<void> {
  const { clocks } = run.site as ClockSite;
  const { cluster } = run;
  const leads = await cluster.leader();
  const { raftTerm } = await leads.status();
  const members = [leads, cluster.all.find((member) => member !== leads)!];
  do {
    for (const member of members) {
      for (const offset of ["+2h", "-3h", "+30d", "+0"]) {
        run.hit(member);
        const before = await wallMs(member);
        clocks.get(cluster.all.indexOf(member))!.step(offset);
        await run.pass(2_000);
        if (Math.abs((await wallMs(member)) - before) < HOUR_MS)
          run.problem(`${member.name} did not notice that its wall clock is now ${offset} from the machine's`);
      }
    }
  } while (!run.isOver);
  run.healed();
  const term = (await leads.status()).raftTerm;
  if (term !== raftTerm) run.problem(`the term went from ${raftTerm} to ${term} while clocks were set`);
}

const HOUR_MS = 3_600_000;

/** A member's wall-clock time: it is in every HTTP response. */
async function wallMs(member: Member): Promise<number> {
  const response = await fetch(`${member.url}/version`);
  await response.text();
  return Date.parse(response.headers.get("date") ?? "");
}

async function replaceMinority(run: Run): Promise<void> {
  const { cluster, load } = run;
  const lost = (cluster.all.length - 1) / 2;
  const victims = [await cluster.leader()];
  for (const member of cluster.all) if (victims.length < lost && !victims.includes(member)) victims.push(member);
  let spare = cluster.all.length;
  run.hit(...victims);
  await Promise.all(victims.map((member) => member.kill("SIGKILL")));
  await Promise.all(victims.map(({ name }) => load.detach(name)));
  await waitFor("a leader among those that are left", () => cluster.leader(victims), 30_000);
  for (const member of victims) {
    await cluster.remove(member);
    const fresh = await cluster.add(specOf(run.settings.kind, run.maybeHosts, spare++));
    load.attach(fresh);
    run.healed();
  }
  while (!run.isOver) await run.pass(100);
}
