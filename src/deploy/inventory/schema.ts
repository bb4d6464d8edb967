/**
 * The JSON schema of an inventory: what editors complete and check, and what is checked here before anything else. One
 * definition for both; `kvorum cluster schema` prints it.
 */
import { KEY_ALGORITHMS } from "../pki/keys.ts";

export interface Schema {
  readonly $schema?: string;
  readonly title?: string;
  readonly description?: string;
  readonly type: "object" | "array" | "string" | "integer" | "boolean";
  readonly properties?: Readonly<Record<string, Schema>>;
  readonly required?: readonly string[];
  readonly additionalProperties?: false;
  readonly items?: Schema;
  readonly minItems?: number;
  readonly maxItems?: number;
  readonly enum?: readonly string[];
  readonly pattern?: string;
  readonly minimum?: number;
  readonly maximum?: number;
}

export const STYLES = ["conf", "environment", "flags"] as const;

export const KUBEADM_APIS = ["v1beta4", "v1beta3"] as const;
export const CGROUP_DRIVERS = ["systemd", "cgroupfs"] as const;

const PATH = "^/[A-Za-z0-9._@+/-]*$";
const NAME = "^[A-Za-z0-9][A-Za-z0-9._-]*$";

const text = (description: string, pattern?: string): Schema => ({
  type: "string",
  description,
  ...(pattern === undefined ? {} : { pattern }),
});
const whole = (description: string, minimum: number, maximum: number): Schema => ({
  type: "integer",
  description,
  minimum,
  maximum,
});
const flag = (description: string): Schema => ({ type: "boolean", description });
const object = (
  description: string,
  properties: Readonly<Record<string, Schema>>,
  required: readonly string[] = [],
): Schema => ({ type: "object", description, properties, required, additionalProperties: false });

const MEMBER = object(
  "One member on one host",
  {
    name: text("Its name in the cluster", NAME),
    address: text("The IP address at which members and clients reach it"),
    ssh: text(
      "How ssh reaches the host, as on its command line: user@host or a name of ~/.ssh/config; the address when absent",
    ),
    zone: text("Where it stands; a warning when one zone has a majority"),
    names: { type: "array", description: "DNS names and more addresses for its certificates", items: text("A name") },
  },
  ["name", "address"],
);

export const INVENTORY_SCHEMA: Schema = {
  $schema: "https://json-schema.org/draft/2020-12/schema",
  title: "An etcd cluster",
  ...object(
    "What kvorum cluster deploys",
    {
      cluster: text("Name of the cluster", NAME),
      token: text("initial-cluster-token; the cluster's name when absent", "^[!-~]+$"),
      members: { type: "array", description: "Its members", items: MEMBER, minItems: 1, maxItems: 9 },
      program: text("Path of the program etcd on the hosts, of kvorum or stock", PATH),
      copy: text(
        "A local file that is copied to the hosts: the program etcd, or an archive with it (.tar.gz, of kvorum or stock); {arch} stands for x64 or arm64, {goarch} for amd64 or arm64",
      ),
      "signed-by": text("Public key (PEM) that must have signed the SHA256SUMS beside the archive"),
      style: {
        type: "string",
        description: "How the unit is configured: conf.yml, an environment file, or flags",
        enum: STYLES,
      },
      user: text("The user that runs it; made when it does not exist", "^[a-z_][a-z0-9_-]*$"),
      service: text("Name of the systemd service", NAME),
      directories: object("Directories on the hosts", {
        data: text("Data", PATH),
        wal: text("The log, when it is on another disk", PATH),
        config: text("Configuration and certificates", PATH),
        releases: text("Copied programs, a directory for each", PATH),
      }),
      ports: object("Ports", { client: whole("For clients", 1, 65_535), peer: whole("For members", 1, 65_535) }),
      loopback: flag("Serve clients on 127.0.0.1 too"),
      authentication: text(
        "A file of mode 0600 with the users: for each name password, read and write (lists of key prefixes). Authentication is enabled with it",
      ),
      tuning: object("Settings of etcd; its defaults when absent", {
        "heartbeat-interval": whole("Milliseconds", 1, 50_000),
        "election-timeout": whole("Milliseconds", 5, 50_000),
        "quota-backend-bytes": whole("Bytes that the database may take", 1, Number.MAX_SAFE_INTEGER),
        "max-request-bytes": whole("Bytes of one request", 1, 2 ** 31 - 1),
        "snapshot-count": whole("Entries between snapshots", 1, Number.MAX_SAFE_INTEGER),
        "auto-compaction-mode": { type: "string", description: "Mode", enum: ["periodic", "revision"] },
        "auto-compaction-retention": text("Hours, a duration, or revisions", "^[0-9a-z.]+$"),
        "log-level": { type: "string", description: "Level", enum: ["debug", "info", "warn", "error"] },
      }),
      certificates: object("Certificates, made in a directory beside this file", {
        directory: text("Where they are made; put your own ca.crt and ca.key there to use your authority"),
        algorithm: { type: "string", description: "Kind of the keys", enum: KEY_ALGORITHMS },
        days: whole("Days that certificates are valid", 1, 36_500),
        "ca-days": whole("Days that the authority is valid", 1, 36_500),
        shared: flag("One certificate for all members, in place of two for each"),
      }),
      kubeadm: object("For members as static pods of the kubelet (kvorum cluster kubeadm)", {
        image: text("The image with the program etcd", "^[^ ]+$"),
        "config-api": { type: "string", description: "Version of kubeadm's configuration", enum: KUBEADM_APIS },
        "cgroup-driver": { type: "string", description: "Of the container runtime", enum: CGROUP_DRIVERS },
        "runtime-endpoint": text("Of the container runtime", "^[!-~]+$"),
        "ca-key-on": text("The member that gets the authority's key; none for no member. The first when absent", NAME),
      }),
    },
    ["cluster", "members"],
  ),
};

/** What differs from the schema: each with the path of the field, such as `members[1].address`. */
export function differences(schema: Schema, value: unknown, path = ""): string[] {
  const where = path === "" ? "the file" : path;
  switch (schema.type) {
    case "object":
      return isObject(value) ? inObject(schema, value, path) : [`${where} is not a map of fields`];
    case "array":
      if (!Array.isArray(value)) return [`${where} is not a list`];
      if (value.length < (schema.minItems ?? 0)) return [`${where} is empty`];
      if (value.length > (schema.maxItems ?? Number.POSITIVE_INFINITY))
        return [`${where} has ${value.length} entries; at most ${schema.maxItems} are allowed`];
      return value.flatMap((item, i) => differences(schema.items!, item, `${path}[${i}]`));
    case "boolean":
      return typeof value === "boolean" ? [] : [`${where} is true or false, not ${JSON.stringify(value)}`];
    case "integer":
      return inRange(schema, value)
        ? []
        : [`${where} is a whole number from ${schema.minimum} to ${schema.maximum}, not ${JSON.stringify(value)}`];
    case "string":
      return inText(schema, value, where);
  }
}

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function inObject(
  { properties = {}, required = [] }: Schema,
  value: Readonly<Record<string, unknown>>,
  path: string,
): string[] {
  const at = (name: string) => (path === "" ? name : `${path}.${name}`);
  const found = required.filter((name) => value[name] === undefined).map((name) => `${at(name)} is missing`);
  for (const [name, field] of Object.entries(value)) {
    if (!Object.hasOwn(properties, name))
      found.push(`there is no field ${at(name)}; there are ${Object.keys(properties).join(", ")}`);
    else if (field !== undefined) found.push(...differences(properties[name]!, field, at(name)));
  }
  return found;
}

const inRange = ({ minimum = 0, maximum = 0 }: Schema, value: unknown): boolean =>
  typeof value === "number" && Number.isSafeInteger(value) && value >= minimum && value <= maximum;

function inText(schema: Schema, value: unknown, where: string): string[] {
  if (typeof value !== "string" || value === "") return [`${where} is a text, not ${JSON.stringify(value)}`];
  if (schema.enum !== undefined && !schema.enum.includes(value))
    return [`${where} is one of ${schema.enum.join(", ")}, not ${value}`];
  if (schema.pattern !== undefined && !new RegExp(schema.pattern).test(value))
    return [`${where} has characters that it may not have: ${JSON.stringify(value)}`];
  return [];
}
