import type { CallInfo } from "../../rpc/contract.ts";

/** Calls by clients of one version. */
export interface ClientCalls {
  readonly version: string;
  unary: number;
  stream: number;
}

/**
 * Counts calls by their clients' API version, which etcd's clients send in the metadata. It becomes a label of metrics:
 * so only valid versions count, and only a limited number of different ones.
 */
export class ClientVersions {
  readonly #calls = new Map<string, ClientCalls>();
  readonly #unknown = this.#add("unknown");
  /** The counters of the last call: most clients have one version. */
  #header: string | undefined;
  #last = this.#unknown;

  unary(call: CallInfo): void {
    this.#of(call).unary++;
  }

  stream(call: CallInfo): void {
    this.#of(call).stream++;
  }

  all(): Iterable<ClientCalls> {
    return this.#calls.values();
  }

  #of(call: CallInfo): ClientCalls {
    const header = call.header("client-api-version");
    if (header !== this.#header) {
      this.#header = header;
      this.#last = header !== undefined && VERSION.test(header) ? this.#named(header) : this.#unknown;
    }
    return this.#last;
  }

  #named(version: string): ClientCalls {
    const found = this.#calls.get(version);
    if (found !== undefined) return found;
    return this.#calls.size < VERSIONS_MAX ? this.#add(version) : this.#unknown;
  }

  #add(version: string): ClientCalls {
    const calls = { version, unary: 0, stream: 0 };
    this.#calls.set(version, calls);
    return calls;
  }
}

const VERSION = /^[0-9A-Za-z.+_-]{1,32}$/;
const VERSIONS_MAX = 100;
