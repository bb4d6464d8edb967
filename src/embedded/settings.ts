/** What an embedded cluster is to be, as users write it, and the checks of it. */
import { KvorumError } from "../base/errors.ts";
import type { Logger } from "../base/log.ts";

/** Settings of `Etcd.start`; all have defaults. */
export interface EtcdSettings {
  /** How many members, or their names; 1 when absent. Names are m1, m2 and so on by default. */
  readonly members?: number | readonly string[];
  /** A directory for the data, which then outlives the process; absent: everything is kept in memory, and no file made. */
  readonly dataDir?: string;
  /**
   * Where clients from outside connect: on random ports of 127.0.0.1 when absent, a port or several (one for each member),
   * or `false` for no socket at all.
   */
  readonly listen?: false | number | readonly number[];
  /** Address to listen on; 127.0.0.1 when absent. */
  readonly host?: string;
  /** TLS for clients from outside: `true` makes a certificate (see `ca`), or the files of one. */
  readonly tls?: boolean | EtcdTls;
  /**
   * Users and their passwords, with roles or, for `root`, all rights. Users are checked from the start when there are
   * any; one must be `root`.
   */
  readonly users?: Readonly<Record<string, string | EtcdUser>>;
  /** What roles may do with which keys. */
  readonly roles?: Readonly<Record<string, readonly EtcdPermission[]>>;
  /** The database's size at which writes are refused with NOSPACE; 2 GiB when absent. */
  readonly quotaBytes?: number;
  /** Milliseconds between heartbeats; 20 when absent. */
  readonly heartbeatMs?: number;
  /** Milliseconds without a heartbeat until another member wants to lead; 200 when absent. */
  readonly electionMs?: number;
  /** Each write reaches the disk before it is answered; true when absent. Without, a crash of the machine loses some. */
  readonly fsync?: boolean;
  /** Addresses for members in other processes; absent: the members talk to each other within this one. */
  readonly peers?: EtcdPeers;
  /** Gets the members' log lines; absent: they are dropped. */
  readonly logger?: Logger;
  /** Told when a member has ended by itself: its disk failed, or something impossible happened. */
  readonly onFailure?: (member: string, error: unknown) => void;
}

/** Certificates of the endpoints, as files in PEM. */
export interface EtcdTls {
  readonly certFile: string;
  readonly keyFile: string;
  /** Clients have to show a certificate of these authorities. */
  readonly clientCaFile?: string;
}

/** A user, with what it may do; root may do everything. */
export interface EtcdUser {
  readonly password: string;
  readonly roles?: readonly string[];
}

/** What a user may do with which keys. */
export interface EtcdPermission {
  readonly access: "read" | "write" | "readwrite";
  /** All keys that begin with this; empty for all. */
  readonly prefix: string;
}

/** For one member whose cluster has others elsewhere, now or later. */
export interface EtcdPeers {
  /** Where it listens for other members, and how they reach it, such as `http://10.0.0.1:2380`. */
  readonly url: string;
  /** The peer URLs of all members by name, this one included; absent for a cluster of this one. */
  readonly cluster?: Readonly<Record<string, string>>;
  /** Joins the running cluster of the others, which must have added it; false when absent: founds a new one. */
  readonly join?: boolean;
}

/** A call or setting of an embedded cluster makes no sense. */
export class EmbeddedError extends KvorumError {
  override name = "EmbeddedError";
  readonly code = "ERR_EMBEDDED";
}

/** The data was replaced by `reset` or `restore`: watches and leases from before it have ended. */
export class EtcdResetError extends KvorumError {
  override name = "EtcdResetError";
  readonly code = "ERR_ETCD_RESET";

  constructor() {
    super("the embedded etcd was reset to another state: watch and grant again");
  }
}

const MEMBERS_MAX = 7;
const NAME = /^[A-Za-z0-9][A-Za-z0-9_-]*$/;

/** The names of the members. Throws EmbeddedError for settings that make no sense. */
export function memberNames(settings: EtcdSettings): readonly string[] {
  const { members = 1, listen, peers, users } = settings;
  const names = typeof members === "number" ? Array.from({ length: members }, (_, i) => `m${i + 1}`) : members;
  if (names.length < 1 || names.length > MEMBERS_MAX || !Number.isInteger(names.length)) {
    throw new EmbeddedError(`members is ${members}: give 1 to ${MEMBERS_MAX}, or as many names`);
  }
  for (const name of names) {
    if (!NAME.test(name)) throw new EmbeddedError(`member name "${name}": use letters, digits, - and _`);
  }
  if (new Set(names).size < names.length) throw new EmbeddedError("two members have the same name");
  const ports = portsOf(listen);
  if (ports !== undefined && ports.length > 0 && ports.length !== names.length) {
    throw new EmbeddedError(`listen has ${ports.length} ports for ${names.length} members: give one for each, or none`);
  }
  if (peers !== undefined && names.length > 1) {
    throw new EmbeddedError("peers is for one member here: the others run in other processes");
  }
  if (users !== undefined && users["root"] === undefined) {
    throw new EmbeddedError("users has no root: give root a password, for without it users cannot be checked");
  }
  return names;
}

/** Ports by member; empty for random ones, undefined for no socket. */
export function portsOf(listen: EtcdSettings["listen"]): readonly number[] | undefined {
  if (listen === false) return undefined;
  if (listen === undefined) return [];
  return typeof listen === "number" ? [listen] : listen;
}
