/** What `import … from "kvorum/testing"` gives: etcd for a file of tests, with node:test, vitest, jest and their like. */
import type { Client } from "../client/client.ts";
import { Etcd } from "../embedded/etcd.ts";
import { EmbeddedError, type EtcdSettings } from "../embedded/settings.ts";

export * from "../embedded/index.ts";

type Hook = (run: () => Promise<void>) => unknown;

/** The hooks of a test runner, under the names of node:test or those of jest, vitest and others. */
export interface TestHooks {
  readonly before?: Hook;
  readonly beforeAll?: Hook;
  readonly beforeEach: Hook;
  readonly after?: Hook;
  readonly afterAll?: Hook;
}

/** A cluster that starts before the tests of a file or suite, and is new for each of them. */
export interface EtcdFixture {
  /** Throws outside of tests. */
  readonly etcd: Etcd;
  /** A client of it; the same in all tests. Throws outside of tests. */
  readonly client: Client;
}

/**
 * Starts etcd before the tests of this file (or of the suite that it is called in), resets it before each, and stops it
 * after the last. Give it the module of the test runner; with jest, or the globals of another, nothing.
 *
 * @example
 * import * as runner from "node:test";
 *
 * const fixture = useEtcd(runner);
 * runner.test("keeps a greeting", async () => {
 *   await fixture.client.put("greeting", "hello");
 * });
 */
export function useEtcd(hooks: TestHooks | undefined = globalHooks(), settings: EtcdSettings = {}): EtcdFixture {
  const begin = hooks.before ?? hooks.beforeAll;
  const end = hooks.after ?? hooks.afterAll;
  if (begin === undefined || end === undefined) throw noHooks();
  let running: { readonly etcd: Etcd; readonly client: Client } | undefined;
  let isNew = true;
  begin(async () => {
    const etcd = await Etcd.start(settings);
    const root = settings.users?.["root"];
    const password = typeof root === "string" ? root : root?.password;
    running = { etcd, client: etcd.client(password === undefined ? {} : { username: "root", password }) };
    isNew = true;
  });
  hooks.beforeEach(async () => {
    if (!isNew) await running?.etcd.reset();
    isNew = false;
  });
  end(async () => {
    await running?.etcd.stop();
    running = undefined;
  });
  const now = () => {
    if (running === undefined) throw new EmbeddedError("etcd runs during the tests: use it inside of one");
    return running;
  };
  return {
    get etcd() {
      return now().etcd;
    },
    get client() {
      return now().client;
    },
  };
}

/** Those that jest, and vitest with `globals`, give to every file. */
function globalHooks(): TestHooks {
  const hook = (name: string): Hook | undefined => Reflect.get(globalThis, name);
  const [beforeAll, beforeEach, afterAll] = [hook("beforeAll"), hook("beforeEach"), hook("afterAll")];
  if (beforeAll === undefined || beforeEach === undefined || afterAll === undefined) throw noHooks();
  return { beforeAll, beforeEach, afterAll };
}

function noHooks(): EmbeddedError {
  return new EmbeddedError(
    'useEtcd needs the hooks of the test runner: import * as runner from "node:test" (or "vitest"), and useEtcd(runner)',
  );
}
