/** What the other pods hold, as they tell on their status ports. */
import { readFileSync } from "node:fs";
import type { Clock } from "../base/clock.ts";
import { getAnswer } from "./http.ts";
import { isObject, parsed, textIn } from "./json.ts";
import { hostOf, urlOf } from "./names.ts";
import { type Plan, planFrom } from "./plan.ts";
import type { PodSettings } from "./settings.ts";

/** What a pod tells of itself. */
export interface PodState {
  readonly name: string;
  readonly uid: string;
  /** Whether there is data of a member in its volume. */
  readonly hasData: boolean;
  readonly plan?: Plan | undefined;
  /** In words: what it does, or waits for. */
  readonly doing: string;
}

/** By name; those that do not answer are absent. */
export async function askPods(
  settings: PodSettings,
  pods: readonly string[],
  clock: Clock,
): Promise<ReadonlyMap<string, PodState>> {
  const answers = await Promise.all(pods.map((pod) => ask(settings, pod, clock).catch(() => undefined)));
  return new Map(answers.flatMap((state) => (state === undefined ? [] : [[state.name, state] as const])));
}

async function ask(settings: PodSettings, pod: string, clock: Clock): Promise<PodState | undefined> {
  const { peerTls, statusPort } = settings;
  const url = `${urlOf(peerTls !== undefined, hostOf(settings, pod), statusPort)}/state`;
  const state = stateFrom(parsed(await fetchPeer(settings, url, clock)));
  return state?.name === pod ? state : undefined;
}

function stateFrom(value: unknown): PodState | undefined {
  const [name, uid, doing = ""] = ["name", "uid", "doing"].map((field) => textIn(value, field));
  if (name === undefined || uid === undefined || !isObject(value)) return undefined;
  // A pod that does not say that its volume is empty is not taken to have one.
  return { name, uid, hasData: value["hasData"] !== false, plan: planFrom(value["plan"]), doing };
}

/** Read each time, so that renewed certificates are used. */
function tlsFiles({ certFile, keyFile, caFile }: NonNullable<PodSettings["peerTls"]>) {
  const ca = caFile === undefined ? {} : { ca: readFileSync(caFile) };
  return { cert: readFileSync(certFile), key: readFileSync(keyFile), ...ca };
}

/** As one member asks another. */
export const fetchPeer = ({ peerTls }: PodSettings, url: string, clock: Clock): Promise<string> =>
  fetchText(url, peerTls === undefined ? {} : tlsFiles(peerTls), clock);

/** The body of an answer with status 200; rejects otherwise. */
export async function fetchText(url: string, tls: Readonly<Record<string, Buffer>>, clock: Clock): Promise<string> {
  const { status, body } = await getAnswer(url, tls, clock);
  if (status !== 200) throw new Error(`status ${status}: ${body.trim()}`);
  return body;
}
