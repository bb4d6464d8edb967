/**
 * `kvorum pod`: the container's one process. Finds its way into the cluster, runs the engine, answers probes and the other pods, and
 * ends: with its member removed when the pod is scaled down, and with the member as it is otherwise.
 */
import { messageOf } from "../base/errors.ts";
import { Backoff } from "./backoff.ts";
import { type DutyState, doDuties } from "./duties.ts";
import { Engine, type EngineEnd } from "./engine.ts";
import { enter } from "./enter.ts";
import { leave, mustLeave } from "./leave.ts";
import { urlOf } from "./names.ts";
import { fetchText, type PodState } from "./neighbours.ts";
import type { Pod } from "./pod.ts";
import { type PodProbes, type Probe, StatusServer } from "./status-server.ts";
import type { Volume } from "./volume.ts";

type Environment = Readonly<Record<string, string | undefined>>;

/** Resolves with the exit code. */
export async function supervise(pod: Pod, volume: Volume, env: Environment): Promise<number> {
  return await new Supervisor(pod, volume, env).run();
}

class Supervisor implements PodProbes {
  readonly #pod: Pod;
  readonly #volume: Volume;
  readonly #env: Environment;
  /** Fires at the first signal to end. */
  readonly #stop = new AbortController();
  #ending: Promise<void> = Promise.resolve();
  #engine: Engine | undefined;
  #duties: DutyState = { isVoter: false };
  /** The engine has been live since its start. */
  #wasLive = false;

  constructor(pod: Pod, volume: Volume, env: Environment) {
    this.#pod = pod;
    this.#volume = volume;
    this.#env = env;
  }

  async run(): Promise<number> {
    const { settings, clock } = this.#pod;
    const status = await StatusServer.listen(settings, this, clock);
    const receive = (signal: NodeJS.Signals) => this.#receive(signal);
    process.on("SIGTERM", receive).on("SIGINT", receive);
    try {
      for (;;) {
        const start = await enter(this.#pod, this.#volume, this.#stop.signal);
        if (start === undefined) break;
        // The word of a person is carried out once, whatever becomes of it.
        if (start.recovered !== undefined) this.#volume.note({ recovered: start.recovered });
        const end = await this.#runEngine(start.flags);
        if (this.#stop.signal.aborted) break;
        // A member that was removed ends with 0: the next round sees whether it is still wanted.
        if (end.code !== 0) {
          this.#pod.says.now(`the engine has failed: ${end.text}`);
          return end.code ?? 1;
        }
        this.#pod.says.now("the engine has ended by itself");
      }
      await this.#ending;
      return 0;
    } finally {
      process.off("SIGTERM", receive).off("SIGINT", receive);
      status.close();
    }
  }

  async #runEngine(flags: readonly string[]): Promise<EngineEnd> {
    const { settings } = this.#pod;
    const engine = new Engine(settings, flags, this.#env);
    this.#engine = engine;
    this.#duties = { isVoter: false };
    this.#wasLive = false;
    const over = new AbortController();
    const duties = Promise.all([this.#noteStart(over.signal), doDuties(this.#pod, this.#duties, over.signal)]);
    const end = await engine.ended;
    over.abort();
    await duties;
    this.#engine = undefined;
    return end;
  }

  /** From the moment on that there is data, a volume without it has lost it. */
  async #noteStart(signal: AbortSignal): Promise<void> {
    const backoff = new Backoff(this.#pod.clock);
    while (!signal.aborted && this.#volume.notes.hasStarted !== true) {
      if (this.#volume.data() !== undefined) this.#volume.note({ hasStarted: true });
      else await backoff.pause(signal);
    }
  }

  #receive(signal: NodeJS.Signals): void {
    if (this.#stop.signal.aborted) {
      this.#pod.says.now(`second ${signal}: ends the engine at once`);
      this.#engine?.kill("SIGKILL");
      return;
    }
    this.#ending = this.#end(signal).catch((error: unknown) => {
      this.#pod.says.now(`ends and stays a member: ${messageOf(error)}`);
      this.#engine?.kill(signal);
    });
    this.#stop.abort();
  }

  async #end(signal: NodeJS.Signals): Promise<void> {
    const wanted = await mustLeave(this.#pod);
    const isGone = wanted !== undefined && (await leave(this.#pod, wanted));
    const engine = this.#engine;
    engine?.kill(signal);
    await engine?.ended;
    if (isGone) this.#volume.discard();
  }

  async livez(): Promise<Probe> {
    if (this.#engine === undefined) return { isOk: true, text: this.#pod.says.doing };
    const probe = await this.#ask("/livez");
    this.#wasLive ||= probe.isOk;
    // A start may be long; what it waits for is in the log.
    return this.#wasLive ? probe : { isOk: true, text: `the engine starts: ${probe.text}` };
  }

  async readyz(): Promise<Probe> {
    if (this.#stop.signal.aborted) return { isOk: false, text: "the pod ends" };
    if (this.#engine === undefined) return { isOk: false, text: this.#pod.says.doing };
    if (!this.#duties.isVoter) return { isOk: false, text: `not a voter yet: ${this.#pod.says.doing}` };
    return await this.#ask("/readyz");
  }

  state(): PodState {
    const { settings, says } = this.#pod;
    const { uid, plan } = this.#volume.notes;
    return { name: settings.name, uid, plan, hasData: this.#volume.data() !== undefined, doing: says.doing };
  }

  async #ask(path: string): Promise<Probe> {
    const { settings, clock } = this.#pod;
    const host = LOOPBACK[settings.listen] ?? settings.listen;
    try {
      return { isOk: true, text: (await fetchText(urlOf(false, host, settings.metricsPort) + path, {}, clock)).trim() };
    } catch (error) {
      return { isOk: false, text: messageOf(error) };
    }
  }
}

const LOOPBACK: Readonly<Record<string, string>> = { "0.0.0.0": "127.0.0.1", "::": "::1" };
