/** The settings of the module `etcd3`, as far as they mean something here. */

/** Of grpc-js; a call knows its deadline. */
export interface CallOptions {
  readonly deadline?: Date | number;
  readonly [other: string]: unknown;
}

/** What a call does, for options that depend on it. */
export interface CallContext {
  readonly service: string;
  readonly method: string;
  readonly params: unknown;
  readonly isStream: boolean;
}

export type CallOptionsFactory = CallOptions | ((context: CallContext) => CallOptions);

/** A policy of the module `cockatiel`, or anything that runs a function as often as it thinks right. */
export interface Policy {
  execute<T>(run: () => PromiseLike<T> | T): Promise<T>;
}

export interface IOptions {
  readonly credentials?: {
    readonly rootCertificate: Buffer;
    readonly privateKey?: Buffer;
    readonly certChain?: Buffer;
  };
  /** Of grpc-js, which is not used: without meaning here. */
  readonly grpcOptions?: object;
  readonly auth?: {
    readonly username: string;
    readonly password: string;
    readonly callOptions?: CallOptionsFactory;
  };
  readonly defaultCallOptions?: CallOptionsFactory;
  readonly hosts: string[] | string;
  /** Milliseconds to connect; 30,000 when absent. */
  readonly dialTimeout?: number;
  readonly faultHandling?: {
    /** Without meaning: this client chooses the member, and avoids those that fail. */
    readonly host?: (hostname: string) => object;
    /** Around every call. */
    readonly global?: Policy;
    /** Without meaning: watches reconnect by themselves. */
    readonly watchBackoff?: object;
  };
}

/** Those of a call: its own, and for what it does not say the client's. */
export function resolveCallOptions(
  own: CallOptions | undefined,
  usual: CallOptionsFactory | undefined,
  context: CallContext,
): CallOptions | undefined {
  const given = typeof usual === "function" ? usual(context) : usual;
  return given === undefined ? own : { ...given, ...own };
}
