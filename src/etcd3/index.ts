/** What `import … from "kvorum/etcd3"` gives: the public surface of the npm package `etcd3`, over this client. */
import { Role, User } from "./auth.ts";
import { AuthClient, ClusterClient, MaintenanceClient } from "./clients.ts";
import { Namespace } from "./namespace.ts";
import type { IOptions } from "./options.ts";
import { ConnectionPool, type ICallable } from "./pool.ts";
import { emptyKey } from "./util.ts";

export type * from "./admin-messages.ts";
export * from "./auth.ts";
export * from "./builder.ts";
export * from "./clients.ts";
export * from "./election.ts";
export * from "./enums.ts";
export * from "./errors.ts";
export * from "./lease.ts";
export * from "./lock.ts";
export type * from "./messages.ts";
export { Namespace } from "./namespace.ts";
export type * from "./options.ts";
export type { ICallable } from "./pool.ts";
export * from "./range.ts";
export * from "./stm.ts";
export { WatchBuilder, Watcher } from "./watch.ts";
export { Services } from "./wire.ts";

const LOCAL = "127.0.0.1:2379";

/**
 * A client with the methods of the npm package `etcd3`: change the import, and nothing else.
 *
 * @example
 * import { Etcd3 } from "kvorum/etcd3";
 *
 * const old = new Etcd3({ hosts: "127.0.0.1:2379" });
 * await old.put("greeting").value("hello");
 * console.log(await old.get("greeting").string());
 * old.close();
 */
export class Etcd3 extends Namespace {
  readonly auth: AuthClient;
  readonly maintenance: MaintenanceClient;
  readonly cluster: ClusterClient;

  constructor(options: IOptions = { hosts: LOCAL }) {
    super(emptyKey, new ConnectionPool(options), options);
    this.auth = new AuthClient(this.pool);
    this.maintenance = new MaintenanceClient(this.pool);
    this.cluster = new ClusterClient(this.pool);
  }

  async getRoles(): Promise<Role[]> {
    const { roles } = await this.auth.roleList();
    return roles.map((name) => this.role(name));
  }

  role(name: string): Role {
    return new Role(this.auth, name);
  }

  async getUsers(): Promise<User[]> {
    const { users } = await this.auth.userList();
    return users.map((name) => this.user(name));
  }

  user(name: string): User {
    return new User(this.auth, name);
  }

  /** Calls go to this in place of a server, until `unmock`. */
  mock<T extends Partial<ICallable>>(callable: T): T {
    this.pool.mock(callable);
    return callable;
  }

  unmock(): void {
    this.pool.unmock();
  }

  close(): void {
    this.pool.close();
  }
}
