/**
 * Runs one etcd server, ours or stock, as a process on 127.0.0.1 with its own ports and data directory. Every process
 * started here is killed by its pid at the latest when the test process ends.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { randomInt } from "node:crypto";
import { closeSync, copyFileSync, existsSync, mkdirSync, mkdtempSync, openSync, readFileSync, rmSync } from "node:fs";
import { get as httpGet } from "node:http";
import { get as httpsGet } from "node:https";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { connect, type RawClient, type TlsOptions } from "../../src/client/raw.ts";
import type { Program } from "./programs.ts";
import { waitFor } from "./wait.ts";

export interface ServerOptions {
  /** Additional flags. */
  readonly args?: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  /** Parent of the temporary directory; os.tmpdir() when absent. */
  readonly tempDir?: string;
  /** An existing data directory, such as one restored from a snapshot; its owner removes it. */
  readonly dataDir?: string;
  /** Time limit of a start, in milliseconds. */
  readonly startTimeoutMs?: number;
  readonly name?: string;
  /** Listen address; 127.0.0.1 when absent. */
  readonly host?: string;
  /** TLS for clients and peers. */
  readonly tls?: ServerTls;
}

export interface ServerTls {
  /** Flags with the paths of the files. */
  readonly args: readonly string[];
  /** Client options. */
  readonly client: TlsOptions;
}

export interface Server {
  readonly program: Program;
  readonly name: string;
  /** `host:port` */
  readonly endpoint: string;
  /** `http://127.0.0.1:port`, or https */
  readonly url: string;
  readonly peerUrl: string;
  readonly dataDir: string;
  /** A connection that survives restarts of the server. */
  readonly client: RawClient;
  readonly pid: number;
  /** The server's whole output, over all its starts. */
  log(): string;
  /** Sends the signal and waits for the process to end. */
  kill(signal: NodeJS.Signals): Promise<void>;
  /** Restarts on the same directory and ports after `kill`. Returns the milliseconds until it was healthy. */
  start(): Promise<number>;
  /** Ends the process and removes its files. */
  close(): Promise<void>;
}

const live = new Set<ChildProcess>();
/** Directories of servers that are not closed yet, with the names of their logs where they are kept. */
const directories = new Map<string, string>();
process.on("exit", () => {
  for (const child of live) child.kill("SIGKILL");
  for (const directory of directories.keys()) discard(directory);
});
for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, () => process.exit(1));

/** Removes a server's files. KVORUM_TEST_LOGS names a directory that keeps its log. */
function discard(directory: string): void {
  const kept = process.env["KVORUM_TEST_LOGS"];
  const log = join(directory, "log");
  if (kept && existsSync(log)) {
    mkdirSync(kept, { recursive: true });
    copyFileSync(log, join(kept, `${directories.get(directory)}.log`));
  }
  rmSync(directory, { recursive: true, force: true });
  directories.delete(directory);
}

const START_ATTEMPTS_MAX = 3;

/** Starts a server and waits until it is healthy. */
export async function startServer(program: Program, options: ServerOptions = {}): Promise<Server> {
  for (let attempt = 1; ; attempt++) {
    const [clientPort, peerPort] = await freePorts(2);
    const server = new ServerProcess(program, options, clientPort!, peerPort!);
    try {
      await server.start();
      return server;
    } catch (error) {
      const taken = server.portWasTaken();
      await server.close();
      if (attempt < START_ATTEMPTS_MAX && taken) continue;
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

/** The process of one server, in a cluster of its own unless `initialCluster` says otherwise. */
export class ServerProcess implements Server {
  /** For the next start. */
  program: Program;
  readonly name: string;
  readonly endpoint: string;
  readonly url: string;
  readonly peerUrl: string;
  readonly dataDir: string;
  readonly client: RawClient;
  /** Cluster flags for the next start. */
  clusterArgs: readonly string[];
  readonly #directory: string;
  readonly #logFile: string;
  readonly #options: ServerOptions;
  #child: ChildProcess | undefined;
  #ended: Promise<void> = Promise.resolve();

  constructor(program: Program, options: ServerOptions, clientPort: number, peerPort: number) {
    const scheme = options.tls === undefined ? "http" : "https";
    this.program = program;
    this.name = options.name ?? "default";
    const host = options.host ?? "127.0.0.1";
    this.endpoint = `${host}:${clientPort}`;
    this.url = `${scheme}://${this.endpoint}`;
    this.peerUrl = `${scheme}://${host}:${peerPort}`;
    this.clusterArgs = ["--initial-cluster", `${this.name}=${this.peerUrl}`];
    this.#options = options;
    this.#directory = mkdtempSync(join(options.tempDir ?? tmpdir(), "kvorum-test-"));
    directories.set(this.#directory, `${process.pid}-${this.name}-${clientPort}`);
    this.dataDir = options.dataDir ?? join(this.#directory, "data");
    this.#logFile = join(this.#directory, "log");
    this.client = connect(this.endpoint, options.tls === undefined ? {} : { tls: options.tls.client });
  }

  get pid(): number {
    const pid = this.#child?.pid;
    if (pid === undefined) throw new Error("the server is not running");
    return pid;
  }

  get running(): boolean {
    return this.#child !== undefined;
  }

  log(): string {
    try {
      return readFileSync(this.#logFile, "utf8");
    } catch {
      return "";
    }
  }

  /** Another process may take a port between its choice and its use. */
  portWasTaken(): boolean {
    return /address already in use|EADDRINUSE/.test(this.log());
  }

  async start(): Promise<number> {
    const begin = performance.now();
    this.spawn();
    await this.healthy();
    return performance.now() - begin;
  }

  /** Starts the process without waiting. */
  spawn(): void {
    const output = openSync(this.#logFile, "a");
    const child = spawn(this.program.file, this.#args(), {
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
  }

  /** Waits until the server is healthy, which needs a leader. */
  async healthy(): Promise<void> {
    try {
      await waitFor(
        "healthy",
        () => {
          if (!this.running) throw new Error("it ended");
          return this.#isHealthy();
        },
        this.#options.startTimeoutMs ?? 30_000,
      );
    } catch (error) {
      const command = `${this.program.file} ${this.#args().join(" ")}`;
      const printed = this.log().slice(-1500);
      throw new Error(`the server did not start (${(error as Error).message}): ${command}; it printed:\n${printed}`);
    }
    await this.client.ready(5_000);
  }

  /** Waits until the process ends by itself. */
  async ended(timeoutMs = 20_000): Promise<void> {
    await waitFor(`${this.name} ends`, () => !this.running, timeoutMs);
  }

  async kill(signal: NodeJS.Signals): Promise<void> {
    this.#child?.kill(signal);
    await this.#ended;
  }

  /** Sends a signal that does not end the process, such as SIGSTOP. */
  signal(signal: NodeJS.Signals): void {
    process.kill(this.pid, signal);
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
    discard(this.#directory);
  }

  #args(): string[] {
    return [
      ...this.program.args,
      ...["--name", this.name, "--data-dir", this.dataDir],
      ...["--listen-client-urls", this.url, "--advertise-client-urls", this.url],
      ...["--listen-peer-urls", this.peerUrl, "--initial-advertise-peer-urls", this.peerUrl],
      ...this.clusterArgs,
      ...(this.#options.tls?.args ?? []),
      ...(this.#options.args ?? []),
    ];
  }

  async #isHealthy(): Promise<boolean> {
    try {
      const { status, body } = await httpText(`${this.url}/health`, this.#options.tls?.client);
      return status === 200 && String((JSON.parse(body) as { health?: unknown }).health) === "true";
    } catch {
      return false;
    }
  }
}

const HTTP_TIMEOUT_MS = 2_000;

/** GET over HTTP or HTTPS with the certificates of the test. */
export function httpText(url: string, tls?: TlsOptions): Promise<{ status: number; body: string }> {
  return new Promise((resolve, reject) => {
    const options = { agent: false, timeout: HTTP_TIMEOUT_MS, ...pems(tls) };
    const request = (url.startsWith("https:") ? httpsGet : httpGet)(url, options, (response) => {
      let body = "";
      response.setEncoding("utf8");
      response.on("data", (chunk) => (body += chunk));
      response.on("end", () => resolve({ status: response.statusCode ?? 0, body }));
      response.on("error", reject);
    });
    request.on("timeout", () => request.destroy(new Error(`${url}: no answer within ${HTTP_TIMEOUT_MS} ms`)));
    request.on("error", reject);
  });
}

const pems = ({ ca, cert, key }: TlsOptions = {}) =>
  Object.fromEntries(
    Object.entries({ ca, cert, key }).flatMap(([name, pem]) => (pem === undefined ? [] : [[name, Buffer.from(pem)]])),
  );

// Below the ephemeral ports of Linux, so that no outgoing connection takes the port of a restarting server.
const PORT_MIN = 12_000;
const PORT_MAX = 32_000;

/** Different ports that were free a moment ago. */
export async function freePorts(count: number): Promise<number[]> {
  const ports = new Set<number>();
  while (ports.size < count) {
    const port = randomInt(PORT_MIN, PORT_MAX);
    if (!ports.has(port) && (await isFree(port))) ports.add(port);
  }
  return [...ports];
}

const isFree = (port: number) =>
  new Promise<boolean>((resolve) => {
    const listener = createServer();
    listener.once("error", () => resolve(false));
    listener.listen(port, "127.0.0.1", () => listener.close(() => resolve(true)));
  });
