/**
 * The users of a cluster, from a file that only its owner may read: for each its password and the key prefixes that it may read
 * and write. Who has no password is known by a client certificate with that name.
 */
import { statSync } from "node:fs";
import { parse } from "yaml";
import { messageOf } from "../../base/errors.ts";
import { DeployError } from "../common/context.ts";
import { readRequired } from "../common/files.ts";

export interface User {
  readonly name: string;
  readonly password: string | undefined;
  /** Prefixes. */
  readonly read: readonly string[];
  readonly write: readonly string[];
}

const FIELDS = ["password", "read", "write"];

/** Throws DeployError with what is wrong, never with a password. */
export function readUsers(path: string): User[] {
  const text = readRequired(path, "the users of the cluster (authentication)");
  if ((statSync(path).mode & 0o077) !== 0)
    throw new DeployError(`others may read ${path}, which has passwords: chmod 600 ${path}`);
  let value: unknown;
  try {
    value = parse(text);
  } catch (error) {
    throw new DeployError(`${path} is not YAML: ${messageOf(error).split("\n")[0]}`);
  }
  if (!isMap(value)) throw new DeployError(`${path} is not a map from users to what they may do`);
  const users = Object.entries(value).map(([name, fields]) => userOf(path, name, fields ?? {}));
  if (!users.some(({ name }) => name === "root"))
    throw new DeployError(`${path} has no user root, without whom authentication cannot be enabled: add "root: {}"`);
  return users;
}

function userOf(path: string, name: string, fields: unknown): User {
  const where = `${path}, user ${name}`;
  if (!isMap(fields)) throw new DeployError(`${where}: it has ${FIELDS.join(", ")}`);
  const unknown = Object.keys(fields).find((field) => !FIELDS.includes(field));
  if (unknown !== undefined)
    throw new DeployError(`${where}: there is no field ${unknown}; there are ${FIELDS.join(", ")}`);
  const { password } = fields;
  if (password !== undefined && (typeof password !== "string" || password === ""))
    throw new DeployError(
      `${where}: password is a text; put it in quotes, or leave it out for a user with a certificate`,
    );
  return { name, password, read: prefixes(where, fields, "read"), write: prefixes(where, fields, "write") };
}

function prefixes(where: string, fields: Readonly<Record<string, unknown>>, field: string): string[] {
  const list = fields[field] ?? [];
  if (!Array.isArray(list)) throw new DeployError(`${where}: ${field} is a list of prefixes, such as ["/app/"]`);
  return list.map((prefix: unknown) => {
    if (typeof prefix === "string" && prefix !== "") return prefix;
    throw new DeployError(`${where}: ${field} has an entry that is no text`);
  });
}

function isMap(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
