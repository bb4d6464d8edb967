import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import protobuf from "protobufjs";
import type { SeededRandom } from "./random.ts";
import { repositoryRoot } from "./repository.ts";

/**
 * Requests that no honest client makes but a log may hold: every field of InternalRaftRequest, with extreme values,
 * undefined enum values, and combinations that the checks before the log refuse.
 */
export function oddRequest(random: SeededRandom): Uint8Array {
  const type = schema.lookupType("etcdserverpb.InternalRaftRequest");
  const fields = type.fieldsArray.filter(({ name }) => name !== "header");
  const field = random.pick(fields);
  const request: Record<string, unknown> = { [field.name]: oddValue(field, random, 0) };
  if (random.chance(0.3)) request["header"] = oddValue(type.fields["header"]!, random, 0);
  return type.encode(type.fromObject(request)).finish();
}

const schema = new protobuf.Root();
for (const name of readdirSync(join(repositoryRoot, "proto"))) {
  for (const file of readdirSync(join(repositoryRoot, "proto", name))) {
    protobuf.parse(readFileSync(join(repositoryRoot, "proto", name, file), "utf8"), schema, { keepCase: true });
  }
}
schema.resolveAll();

/** Transactions nest. */
const DEPTH_MAX = 6;

function oddMessage(type: protobuf.Type, random: SeededRandom, depth: number): Record<string, unknown> {
  const message: Record<string, unknown> = {};
  const chosen = new Set(type.oneofsArray.map((oneof) => random.pick(oneof.fieldsArray).name));
  for (const field of type.fieldsArray) {
    if (field.partOf !== null ? !chosen.has(field.name) : random.chance(0.4)) continue;
    if (depth >= DEPTH_MAX && field.resolvedType instanceof protobuf.Type) continue;
    message[field.name] = field.repeated
      ? Array.from({ length: random.below(4) }, () => oddValue(field, random, depth))
      : oddValue(field, random, depth);
  }
  return message;
}

function oddValue(field: protobuf.Field, random: SeededRandom, depth: number): unknown {
  if (field.resolvedType instanceof protobuf.Type) return oddMessage(field.resolvedType, random, depth + 1);
  if (field.resolvedType instanceof protobuf.Enum) {
    return random.chance(0.9) ? random.pick(Object.values(field.resolvedType.values)) : random.pick([99, -1]);
  }
  switch (field.type) {
    case "string":
      return random.pick(STRINGS);
    case "bytes":
      return Buffer.from(random.pick(KEYS), "latin1");
    case "bool":
      return random.chance(0.5);
    default:
      return random.pick(field.type.startsWith("u") ? UNSIGNED : SIGNED);
  }
}

const STRINGS = [
  "",
  "root",
  "a",
  "b",
  "3.7.0",
  "3.6",
  "99.0",
  "nonsense",
  "/0/version",
  "PUT",
  "é",
  "\0",
  "YWI=",
  "n".repeat(5000),
];
/** Few, so that requests collide; the empty key and single zeros have special meanings. */
const KEYS = ["", "\0", "a", "b", "b", "c", "\xff", "a\0", "k".repeat(3000)];
const SIGNED = [
  "0",
  "1",
  "2",
  "5",
  "-1",
  "2147483648",
  "9007199254740993",
  "9223372036854775807",
  "-9223372036854775808",
];
const UNSIGNED = ["0", "1", "2", "5", "4294967296", "9007199254740993", "18446744073709551615"];
