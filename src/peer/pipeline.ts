import { inBackground } from "../base/background.ts";
import { formatId } from "../membership/member.ts";
import { Message } from "../proto/raftpb.ts";
import type { PeerContext } from "./context.ts";
import { localHeaders } from "./headers.ts";
import type { PeerStatus } from "./peer-status.ts";
import { postProblem } from "./post.ts";
import type { UrlPicker } from "./url-picker.ts";

/** Requests in flight, and messages waiting for one; as in etcd. */
const IN_FLIGHT_MAX = 4;
const QUEUE_MAX = 64;

/** A peer without a leader may delay a forwarded proposal; no client waits longer than this. */
const POST_MS_MAX = 30_000;
const PATH = "/raft";

/** Sends each message in a request of its own, while there is no stream. Messages may arrive out of order. */
export class Pipeline {
  readonly name = "pipeline";
  readonly #peerId: bigint;
  readonly #context: PeerContext;
  readonly #status: PeerStatus;
  readonly #picker: UrlPicker;
  #queue: Message[] = [];
  #inFlight = 0;
  #stopped = false;

  constructor(peerId: bigint, context: PeerContext, status: PeerStatus, picker: UrlPicker) {
    this.#peerId = peerId;
    this.#context = context;
    this.#status = status;
    this.#picker = picker;
    context.logger.info("started HTTP pipelining with remote peer", this.#fields());
  }

  /** False when too many messages wait. */
  push(message: Message): boolean {
    if (this.#queue.length >= QUEUE_MAX) return false;
    this.#queue.push(message);
    return true;
  }

  flush(): void {
    while (this.#inFlight < IN_FLIGHT_MAX && this.#queue.length > 0 && !this.#stopped) {
      this.#inFlight++;
      const sent = this.#send(this.#queue.shift()!).finally(() => {
        this.#inFlight--;
        this.flush();
      });
      inBackground(sent, "post a message to a peer", this.#context.logger);
    }
  }

  stop(): void {
    this.#stopped = true;
    this.#queue = [];
    this.#context.logger.info("stopped HTTP pipelining with remote peer", this.#fields());
  }

  async #send(message: Message): Promise<void> {
    const body = Message.encode(message);
    const problem = await this.#post(body);
    if (this.#stopped) return;
    const { metrics } = this.#context;
    const peer = formatId(this.#peerId);
    if (problem === undefined) {
      this.#status.activate();
      metrics.sentBytes.add(peer, body.length);
      return;
    }
    this.#status.deactivate(this.name, "write", problem);
    this.#context.reportUnreachable(this.#peerId);
    metrics.sendFailures.add(peer, 1);
  }

  async #post(body: Buffer): Promise<string | undefined> {
    const url = this.#picker.pick();
    let problem: string | undefined;
    try {
      const headers = { "Content-Type": "application/protobuf", ...localHeaders(this.#context.local) };
      const request = { method: "POST", url, path: PATH, headers, body, timeoutMs: POST_MS_MAX } as const;
      const response = await this.#context.http.request(request);
      problem = postProblem(this.#context, this.#peerId, url, PATH, response);
    } catch (error) {
      problem = (error as Error).message;
    }
    if (problem !== undefined) this.#picker.unreachable(url);
    return problem;
  }

  #fields(): Record<string, string> {
    return { "local-member-id": formatId(this.#context.local.id), "remote-peer-id": formatId(this.#peerId) };
  }
}
