import type { Clock, Timer } from "../../base/clock.ts";
import { isFatal } from "../../base/fatal.ts";
import type { Logger } from "../../base/log.ts";
import { formatId } from "../../membership/member.ts";
import { Attributes, ClusterMemberAttrSetRequest } from "../../proto/membershippb.ts";
import { EtcdError } from "../contract/errors.ts";
import type { Empty } from "../log/operations.ts";

const RETRY_MS = 500;

/** Publishes a member's name and client URLs to the cluster, through the log, and retries until that has succeeded. */
export class Publisher {
  /** Resolves when published: the member has a leader and can serve. */
  readonly published: Promise<void>;
  readonly #memberId: bigint;
  readonly #clusterId: bigint;
  readonly #attributes: Attributes;
  readonly #propose: (request: ClusterMemberAttrSetRequest, payload: Uint8Array) => Promise<Empty | EtcdError>;
  readonly #clock: Clock;
  readonly #logger: Logger;
  readonly #resolve: () => void;
  #timer: Timer | undefined;
  #stopped = false;

  constructor(options: {
    memberId: bigint;
    clusterId: bigint;
    name: string;
    clientUrls: readonly string[];
    /** Proposes the request; resolves when it is applied. */
    propose: (request: ClusterMemberAttrSetRequest, payload: Uint8Array) => Promise<Empty | EtcdError>;
    clock: Clock;
    logger: Logger;
  }) {
    this.#memberId = options.memberId;
    this.#clusterId = options.clusterId;
    this.#attributes = Attributes.create({ name: options.name, clientUrls: [...options.clientUrls] });
    this.#propose = options.propose;
    this.#clock = options.clock;
    this.#logger = options.logger;
    let resolve = (): void => {};
    this.published = new Promise((r) => (resolve = r));
    this.#resolve = resolve;
  }

  start(): void {
    this.#try();
  }

  stop(): void {
    this.#stopped = true;
    this.#timer?.cancel();
  }

  /** Retries until it is published, whatever the errors. */
  #try(): void {
    this.#publish().catch((error: unknown) => {
      if (isFatal(error)) throw error;
      this.#logger.error("failed to publish local member to cluster through raft", { error: `${error}` });
      if (!this.#stopped) this.#timer = this.#clock.after(RETRY_MS, () => this.#try());
    });
  }

  async #publish(): Promise<void> {
    const request = ClusterMemberAttrSetRequest.create({
      memberId: this.#memberId,
      memberAttributes: this.#attributes,
    });
    const outcome = await this.#propose(request, ClusterMemberAttrSetRequest.encode(request));
    if (this.#stopped) return;
    const fields = {
      "local-member-id": formatId(this.#memberId),
      "local-member-attributes": `{Name:${this.#attributes.name} ClientURLs:[${this.#attributes.clientUrls.join(" ")}]}`,
    };
    if (outcome instanceof EtcdError) {
      this.#logger.warn("failed to publish local member to cluster through raft", {
        ...fields,
        error: outcome.message,
      });
      this.#timer = this.#clock.after(RETRY_MS, () => this.#try());
      return;
    }
    this.#logger.info("published local member to cluster through raft", {
      ...fields,
      "cluster-id": formatId(this.#clusterId),
    });
    this.#resolve();
  }
}
