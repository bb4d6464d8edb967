/**
 * Whole servers in the simulator, recorded for the specification: production's own use of the core, over its loop, with
 * asynchronous writes. Members are partitioned, paused and added, messages are lost and delayed. Kills are excluded: a
 * server can lose part of a Ready's writes, which the specification does not model; a trace ends with the first
 * restart.
 */
import { FAIR } from "../../sim/network.ts";
import { planOf } from "../../sim/plan.ts";
import { simulate } from "../../sim/simulation.ts";
import { Tracer } from "./tracer.ts";

const WEATHER = { ...FAIR, delayMaxMs: 40, loss: 0.03, straggling: 0.02 };

export async function recordServers(seed: number, eventsMax: number): Promise<Tracer> {
  const plan = planOf(seed, {
    durationMs: 10_000,
    operations: 60,
    only: ["isolate", "split", "link", "pause", "replace"],
    weather: WEATHER,
  });
  const tracer = new Tracer(eventsMax);
  await simulate(plan, {
    bug: {
      name: "none",
      about: "only watches",
      plant(simulation) {
        simulation.onStarted = (machine) => tracer.attachDriven(machine.running!.parts.node);
        return () => {
          simulation.onStarted = undefined;
        };
      },
    },
  });
  return tracer;
}
