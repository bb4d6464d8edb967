/** How the module's calls are made: over one client of ours, which chooses members, keeps tokens and reconnects. */
import { systemClock } from "../base/clock.ts";
import { Client } from "../client/client.ts";
import type { CallOptions as ClientCallOptions } from "../client/options.ts";
import { safetyOf } from "../client/safety.ts";
import { ClientClosedError, castGrpcError, GRPCDeadlineExceededError } from "./errors.ts";
import { type CallOptions, type CallOptionsFactory, type IOptions, resolveCallOptions } from "./options.ts";
import { fromMessage, methodOf, type ServiceName, toMessage } from "./wire.ts";

/** Makes calls; tests put their own in its place (`mock`). */
export interface ICallable {
  exec<T>(service: ServiceName, method: string, params: unknown, options?: CallOptions): Promise<T>;
}

const DIAL_TIMEOUT_MS = 30_000;

export class ConnectionPool implements ICallable {
  /** The client below. What it can do is not limited to this module's calls. */
  readonly client: Client;
  readonly callOptionsFactory: CallOptionsFactory | undefined;
  readonly #options: IOptions;
  #mock: Partial<ICallable> | undefined;
  #closed = false;

  /** Throws an error for hosts that are partly secure. */
  constructor(options: IOptions) {
    this.#options = options;
    this.callOptionsFactory = options.defaultCallOptions;
    const hosts = typeof options.hosts === "string" ? [options.hosts] : options.hosts;
    if (hosts.length === 0) throw new Error("Cannot construct an etcd client with no hosts specified");
    const { credentials, auth } = options;
    const secure = hosts.filter((host) => host.startsWith("https:")).length;
    if (credentials === undefined && secure > 0 && secure < hosts.length) {
      throw new Error("etcd3 cannot be configured with a mix of secure and insecure hosts");
    }
    this.client = new Client({
      endpoints: hosts,
      timeoutMs: Number.POSITIVE_INFINITY,
      connectTimeoutMs: options.dialTimeout ?? DIAL_TIMEOUT_MS,
      failFast: true,
      ...(auth === undefined ? {} : { username: auth.username, password: auth.password }),
      ...(credentials === undefined
        ? {}
        : {
            tls: {
              ca: credentials.rootCertificate,
              ...(credentials.certChain === undefined ? {} : { cert: credentials.certChain }),
              ...(credentials.privateKey === undefined ? {} : { key: credentials.privateKey }),
            },
          }),
    });
  }

  mock(callable: Partial<ICallable>): void {
    this.#mock = callable;
  }

  unmock(): void {
    this.#mock = undefined;
  }

  close(): void {
    this.#closed = true;
    this.client.close();
  }

  exec<T>(service: ServiceName, method: string, params: unknown, options?: CallOptions): Promise<T> {
    if (this.#mock?.exec !== undefined) return this.#mock.exec<T>(service, method, params, options);
    if (this.#closed) return Promise.reject(new ClientClosedError(service));
    const run = (): Promise<T> => this.#call(service, method, params, options);
    return this.#options.faultHandling?.global?.execute(run) ?? run();
  }

  async #call<T>(service: ServiceName, method: string, params: unknown, options?: CallOptions): Promise<T> {
    const type = methodOf(service, method);
    if (type === undefined) throw new Error(`there is no method ${method} of ${service}`);
    const context = { service, method, params, isStream: false };
    const { auth } = this.#options;
    const own = resolveCallOptions(options, auth === undefined ? undefined : auth.callOptions, context);
    const limits = limitsOf(resolveCallOptions(own, this.callOptionsFactory, context));
    if ((limits.timeoutMs ?? 1) <= 0) throw new GRPCDeadlineExceededError(`the deadline of ${method} has passed`);
    const request = toMessage(type.request.typeName, typeof params === "object" && params !== null ? params : {});
    try {
      return await this.client.caller.unary(type, request, safetyOf(type), limits, (response) => {
        const answer: unknown = fromMessage(type.response.typeName, response);
        return answered<T>(answer);
      });
    } catch (error) {
      throw castGrpcError(error);
    }
  }
}

/** The caller of a method says what its answer is. */
function answered<T>(answer: unknown): T;
function answered(answer: unknown): unknown {
  return answer;
}

function limitsOf(options: CallOptions | undefined): ClientCallOptions {
  const { deadline } = options ?? {};
  if (deadline === undefined) return {};
  const leftMs = (typeof deadline === "number" ? deadline : deadline.getTime()) - systemClock.wallMs();
  return { timeoutMs: Math.max(0, leftMs) };
}
