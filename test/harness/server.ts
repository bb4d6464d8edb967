/**
 * Runs one etcd server, ours or stock, as a process of its own on 127.0.0.1 with ports and a data directory that nobody
 * else uses. Every process started here is killed by its pid at the latest when the test process ends.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { connect, type RawClient } from "../../src/client/raw.ts";
import type { Program } from "./programs.ts";
import { waitFor } from "./wait.ts";

export interface ServerOptions {
  /** Further flags. */
  readonly args?: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  /** Parent of the temporary directory; os.tmpdir() when absent. */
  readonly tempDir?: string;
  /** An existing data directory, such as one restored from a snapshot; its owner removes it. */
  readonly dataDir?: string;
  /** Milliseconds that a start may take. */
  readonly startTimeoutMs?: number;
  readonly name?: string;
}

export interface Server {
  readonly program: Program;
  readonly name: string;
  /** `127.0.0.1:port` */
  readonly endpoint: string;
  /** `http://127.0.0.1:port` */
  readonly url: string;
  readonly peerUrl: string;
  readonly dataDir: string;
  /** A connection that outlives restarts of the server. */
  readonly client: RawClient;
  readonly pid: number;
  /** All that the server printed, over all its starts. */
  log(): string;
  /** Sends the signal and waits for the end of the process. */
  kill(signal: NodeJS.Signals): Promise<void>;
  /** Starts again on the same directory and ports after `kill`. Returns the milliseconds until it was healthy. */
  start(): Promise<number>;
  /** Ends the process and removes what it left on the disk. */
  close(): Promise<void>;
}

const live = new Set<ChildProcess>();
const directories = new Set<string>();
process.on("exit", () => {
  for (const child of live) child.kill("SIGKILL");
  for (const directory of directories) rmSync(directory, { recursive: true, force: true });
});
for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, () => process.exit(1));

const START_ATTEMPTS_MAX = 3;

/** Starts a server and waits until it reports health. */
export async function startServer(program: Program, options: ServerOptions = {}): Promise<Server> {
  for (let attempt = 1; ; attempt++) {
    const [clientPort, peerPort] = await freePorts(2);
    const server = new ServerProcess(program, options, clientPort!, peerPort!);
    try {
      await server.start();
      return server;
    } catch (error) {
      const log = server.log();
      await server.close();
      // Another process may have taken the port between its choice and its use.
      if (attempt < START_ATTEMPTS_MAX && /address already in use|EADDRINUSE/.test(log)) continue;
      throw error;
    }
  }
}

/** Starts several servers at once; when one does not start, the others are closed too. */
export async function startServers(programs: readonly Program[], options: ServerOptions = {}): Promise<Server[]> {
  const results = await Promise.allSettled(programs.map((program) => startServer(program, options)));
  const started = results.flatMap((result) => (result.status === "fulfilled" ? [result.value] : []));
  const failed = results.find((result) => result.status === "rejected");
  if (failed === undefined) return started;
  await Promise.all(started.map((server) => server.close()));
  throw failed.reason;
}

class ServerProcess implements Server {
  readonly program: Program;
  readonly name: string;
  readonly endpoint: string;
  readonly url: string;
  readonly peerUrl: string;
  readonly dataDir: string;
  readonly client: RawClient;
  readonly #directory: string;
  readonly #logFile: string;
  readonly #options: ServerOptions;
  #child: ChildProcess | undefined;
  #ended: Promise<void> = Promise.resolve();

  constructor(program: Program, options: ServerOptions, clientPort: number, peerPort: number) {
    this.program = program;
    this.name = options.name ?? "default";
    this.endpoint = `127.0.0.1:${clientPort}`;
    this.url = `http://${this.endpoint}`;
    this.peerUrl = `http://127.0.0.1:${peerPort}`;
    this.#options = options;
    this.#directory = mkdtempSync(join(options.tempDir ?? tmpdir(), "kvorum-test-"));
    directories.add(this.#directory);
    this.dataDir = options.dataDir ?? join(this.#directory, "data");
    this.#logFile = join(this.#directory, "log");
    this.client = connect(this.endpoint);
  }

  get pid(): number {
    const pid = this.#child?.pid;
    if (pid === undefined) throw new Error("the server is not running");
    return pid;
  }

  log(): string {
    try {
      return readFileSync(this.#logFile, "utf8");
    } catch {
      return "";
    }
  }

  async start(): Promise<number> {
    const begin = performance.now();
    const args = [
      ...this.program.args,
      ...["--name", this.name, "--data-dir", this.dataDir],
      ...["--listen-client-urls", this.url, "--advertise-client-urls", this.url],
      ...["--listen-peer-urls", this.peerUrl, "--initial-advertise-peer-urls", this.peerUrl],
      ...["--initial-cluster", `${this.name}=${this.peerUrl}`],
      ...(this.#options.args ?? []),
    ];
    const output = openSync(this.#logFile, "a");
    const child = spawn(this.program.file, args, {
      stdio: ["ignore", output, output],
      env: { ...process.env, ...this.#options.env },
    });
    closeSync(output);
    live.add(child);
    this.#child = child;
    this.#ended = new Promise((resolve) => {
      const ended = () => {
        live.delete(child);
        if (this.#child === child) this.#child = undefined;
        resolve();
      };
      child.once("exit", ended);
      child.once("error", ended);
    });
    const what = () => `${this.program.file} ${args.join(" ")}; it printed:\n${this.log().slice(-4000)}`;
    try {
      await waitFor(
        "healthy",
        () => {
          if (this.#child === undefined) throw new Error("it ended");
          return isHealthy(this.url);
        },
        this.#options.startTimeoutMs ?? 30_000,
      );
    } catch (error) {
      throw new Error(`the server did not start (${(error as Error).message}): ${what()}`);
    }
    const took = performance.now() - begin;
    await this.client.ready(5_000);
    return took;
  }

  async kill(signal: NodeJS.Signals): Promise<void> {
    this.#child?.kill(signal);
    await this.#ended;
  }

  async close(): Promise<void> {
    this.client.close();
    const child = this.#child;
    if (child !== undefined) {
      child.kill("SIGTERM");
      const timer = setTimeout(() => child.kill("SIGKILL"), 5_000);
      await this.#ended;
      clearTimeout(timer);
    }
    rmSync(this.#directory, { recursive: true, force: true });
    directories.delete(this.#directory);
  }
}

async function isHealthy(url: string): Promise<boolean> {
  try {
    const response = await fetch(`${url}/health`, { signal: AbortSignal.timeout(2_000) });
    const { health } = (await response.json()) as { health?: unknown };
    return response.ok && String(health) === "true";
  } catch {
    return false;
  }
}

/** Ports that were free a moment ago, all different. */
export async function freePorts(count: number): Promise<number[]> {
  const listeners = await Promise.all(
    Array.from(
      { length: count },
      () =>
        new Promise<ReturnType<typeof createServer>>((resolve, reject) => {
          const listener = createServer();
          listener.once("error", reject);
          listener.listen(0, "127.0.0.1", () => resolve(listener));
        }),
    ),
  );
  const ports = listeners.map((listener) => (listener.address() as { port: number }).port);
  await Promise.all(listeners.map((listener) => new Promise((resolve) => listener.close(resolve))));
  return ports;
}
