/** Numbers about running backups for Prometheus: of each store, how old and how large what is stored is. */
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import type { Clock, Timer } from "../base/clock.ts";
import type { Disk } from "../base/disk.ts";
import { BackupError } from "./error.ts";
import type { Manifest, Verification } from "./format/manifest.ts";

interface StoreNumbers {
  revision: number;
  storedMs: number;
  fullMs: number;
  fullBytes: number;
  deltaBytes: number;
  objects: number;
  holes: number;
  failures: number;
  verifiedMs: number;
  verificationsFailed: number;
}

const WRITE_EVERY_MS = 15_000;

const METRICS: readonly (readonly [name: string, kind: string, help: string, of: (n: StoreNumbers) => number])[] = [
  ["revision", "gauge", "Newest revision that is stored.", (n) => n.revision],
  ["stored_timestamp_seconds", "gauge", "When the newest object was stored.", (n) => n.storedMs / 1000],
  ["full_timestamp_seconds", "gauge", "When the newest full snapshot was taken.", (n) => n.fullMs / 1000],
  ["full_size_bytes", "gauge", "Stored size of the newest full snapshot.", (n) => n.fullBytes],
  [
    "verified_timestamp_seconds",
    "gauge",
    "When the repository was last verified; 0 for never.",
    (n) => n.verifiedMs / 1000,
  ],
  ["delta_bytes_total", "counter", "Stored bytes of deltas since the start.", (n) => n.deltaBytes],
  ["objects_total", "counter", "Objects stored since the start.", (n) => n.objects],
  [
    "holes_total",
    "counter",
    "Holes noted since the start: changes that were compacted before they were stored.",
    (n) => n.holes,
  ],
  ["failures_total", "counter", "Failed attempts to read the cluster or to write the store.", (n) => n.failures],
  ["verifications_failed_total", "counter", "Verifications that found a problem.", (n) => n.verificationsFailed],
];

export class BackupMetrics {
  readonly #stores = new Map<string, StoreNumbers>();
  readonly #clock: Clock;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  stored(store: string, { kind, to, data, startedMs }: Manifest): void {
    const numbers = this.#of(store);
    numbers.objects++;
    numbers.storedMs = this.#clock.wallMs();
    if (kind === "hole") numbers.holes++;
    else numbers.revision = Math.max(numbers.revision, to);
    if (kind === "delta") numbers.deltaBytes += data?.sizeBytes ?? 0;
    if (kind !== "full") return;
    numbers.fullMs = startedMs;
    numbers.fullBytes = data?.sizeBytes ?? 0;
  }

  failed(store: string): void {
    this.#of(store).failures++;
  }

  verified(store: string, { atMs }: Verification): void {
    this.#of(store).verifiedMs = atMs;
  }

  verificationEnded(store: string, isGood: boolean): void {
    if (!isGood) this.#of(store).verificationsFailed++;
  }

  text(): string {
    return METRICS.map(([name, kind, help, of]) => {
      const lines = [...this.#stores].map(
        ([store, numbers]) => `kvorum_backup_${name}{store=${JSON.stringify(store)}} ${of(numbers)}\n`,
      );
      return `# HELP kvorum_backup_${name} ${help}\n# TYPE kvorum_backup_${name} ${kind}\n${lines.join("")}`;
    }).join("");
  }

  /** Writes the text into a file, again and again, each time as a whole. */
  writeEvery(path: string, disk: Disk, clock: Clock): Timer {
    return clock.every(WRITE_EVERY_MS, () => {
      const bytes = Buffer.from(this.text());
      const part = `${path}.part`;
      const file = disk.open(part, "w", 0o644);
      try {
        file.write(bytes, 0);
      } finally {
        file.close();
      }
      disk.rename(part, path);
    });
  }

  #of(store: string): StoreNumbers {
    let numbers = this.#stores.get(store);
    if (numbers === undefined) {
      numbers = {
        ...{ revision: 0, storedMs: 0, fullMs: 0, fullBytes: 0, deltaBytes: 0, objects: 0, holes: 0, failures: 0 },
        ...{ verifiedMs: 0, verificationsFailed: 0 },
      };
      this.#stores.set(store, numbers);
    }
    return numbers;
  }
}

/** Serves the text at `host:port`; undefined when that is empty. Throws BackupError, node's errors. */
export async function serveMetrics(
  metrics: BackupMetrics,
  listen: string,
): Promise<{ readonly address: string; close(): void } | undefined> {
  if (listen === "") return undefined;
  const colon = listen.lastIndexOf(":");
  const port = Number(listen.slice(colon + 1));
  if (colon < 1 || !Number.isInteger(port)) {
    throw new BackupError("ERR_BACKUP_USAGE", `--listen-metrics ${listen}: write host:port, such as 127.0.0.1:9179`);
  }
  const server = createServer((request, response) => {
    const isThere = request.url === "/metrics";
    response.writeHead(isThere ? 200 : 404, { "content-type": "text/plain; version=0.0.4" });
    response.end(isThere ? metrics.text() : "see /metrics\n");
  });
  const host = listen.slice(0, colon).replace(/^\[(.*)\]$/, "$1");
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(port, host, resolve);
  });
  const address: AddressInfo | string | null = server.address();
  const shown = typeof address === "object" && address !== null ? `${host}:${address.port}` : listen;
  return {
    address: shown,
    close: () => {
      server.close();
      server.closeAllConnections();
    },
  };
}
