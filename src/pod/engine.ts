/** The member itself: a child process, etcd of kvorum or another one. */
import { type ChildProcess, spawn } from "node:child_process";
import { systemText } from "../base/system-error.ts";
import { clientUrlOf, peerUrlOf, urlOf } from "./names.ts";
import type { PodSettings, PodTls } from "./settings.ts";

export interface EngineEnd {
  /** Undefined when it was ended by a signal. */
  readonly code: number | undefined;
  readonly text: string;
}

export class Engine {
  readonly ended: Promise<EngineEnd>;
  hasEnded = false;
  readonly #child: ChildProcess;

  /** @param flags how the cluster comes to be */
  constructor(settings: PodSettings, flags: readonly string[], env: Readonly<Record<string, string | undefined>>) {
    const { file, args } = settings.engine;
    this.#child = spawn(file, [...args, ...engineFlags(settings), ...flags, ...settings.engineArgs], {
      stdio: ["ignore", "inherit", "inherit"],
      env: ownEnvironment(env),
    });
    this.ended = new Promise((resolve) => {
      const end = (code: number | undefined, text: string) => {
        this.hasEnded = true;
        resolve({ code, text });
      };
      this.#child.once("error", (error) => end(1, `it cannot be started: ${systemText(error)}`));
      this.#child.once("exit", (code, signal) =>
        code === null ? end(undefined, `it was ended by ${signal}`) : end(code, `it ended with ${code}`),
      );
    });
  }

  kill(signal: NodeJS.Signals): void {
    this.#child.kill(signal);
  }
}

function engineFlags(settings: PodSettings): readonly string[] {
  const { name, dataDir, listen, clientPort, peerPort, metricsPort, clientTls, peerTls, clientCertAuth } = settings;
  return [
    `--name=${name}`,
    `--data-dir=${dataDir}`,
    `--listen-client-urls=${urlOf(clientTls !== undefined, listen, clientPort)}`,
    `--advertise-client-urls=${clientUrlOf(settings, name)}`,
    `--listen-peer-urls=${urlOf(peerTls !== undefined, listen, peerPort)}`,
    `--initial-advertise-peer-urls=${peerUrlOf(settings, name)}`,
    `--listen-metrics-urls=${urlOf(false, listen, metricsPort)}`,
    ...tlsFlags("", clientTls, clientCertAuth),
    ...tlsFlags("peer-", peerTls, peerTls?.caFile !== undefined),
  ];
}

function tlsFlags(prefix: string, tls: PodTls | undefined, asksForCertificates: boolean): readonly string[] {
  if (tls === undefined) return [];
  return [
    `--${prefix}cert-file=${tls.certFile}`,
    `--${prefix}key-file=${tls.keyFile}`,
    ...(tls.caFile === undefined ? [] : [`--${prefix}trusted-ca-file=${tls.caFile}`]),
    ...(asksForCertificates ? [`--${prefix}client-cert-auth`] : []),
  ];
}

/** Stock etcd refuses a variable whose flag is given too. */
function ownEnvironment(env: Readonly<Record<string, string | undefined>>): NodeJS.ProcessEnv {
  const own = /^(ETCD_(NAME|DATA_DIR|INITIAL_|ADVERTISE_|LISTEN_)|KVORUM_POD_|NOTIFY_SOCKET$)/;
  return Object.fromEntries(Object.entries(env).filter(([name]) => !own.test(name)));
}
