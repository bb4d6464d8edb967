import type { Url } from "../config/values/url.ts";
import { formatId } from "../membership/member.ts";
import type { Message } from "../proto/raftpb.ts";
import { type PeerContext, typeName } from "./context.ts";
import { PeerStatus } from "./peer-status.ts";
import { Pipeline } from "./pipeline.ts";
import { UrlPicker } from "./url-picker.ts";

/** A member that must be answered but is not in the local log yet: it joined while this member was behind. */
export class Remote {
  readonly id: bigint;
  readonly #context: PeerContext;
  readonly #pipeline: Pipeline;
  readonly #status: PeerStatus;
  #isDropping = false;
  isDirty = false;

  constructor(id: bigint, urls: readonly Url[], context: PeerContext) {
    this.id = id;
    this.#context = context;
    this.#status = new PeerStatus(id, context.clock, context.logger, context.metrics);
    this.#pipeline = new Pipeline(id, context, this.#status, new UrlPicker(urls));
  }

  /** Queues a message for `flush`, or drops it. */
  push(message: Message): void {
    if (this.#pipeline.push(message)) {
      this.#isDropping = false;
      return;
    }
    this.#context.metrics.sendFailures.add(formatId(this.id), 1);
    if (this.#isDropping) return;
    this.#isDropping = true;
    this.#context.logger.warn("dropped Raft message since sending buffer is full (overloaded network)", {
      "message-type": typeName(message),
      "local-member-id": formatId(this.#context.local.id),
      from: formatId(message.from),
      "remote-peer-id": formatId(this.id),
      "remote-peer-active": this.#status.isActive,
    });
  }

  flush(): void {
    this.#pipeline.flush();
  }

  stop(): void {
    this.#pipeline.stop();
    this.#status.close();
  }
}
