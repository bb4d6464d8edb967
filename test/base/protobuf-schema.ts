/** The generated codecs and protobufjs's reading of the same .proto texts: two implementations of one contract. */
import protobuf from "protobufjs";
import type { Codec } from "../../src/base/protobuf.ts";
import * as authpb from "../../src/proto/authpb.ts";
import * as etcdserverpb from "../../src/proto/etcdserverpb.ts";
import * as leasepb from "../../src/proto/leasepb.ts";
import * as membershippb from "../../src/proto/membershippb.ts";
import * as mvccpb from "../../src/proto/mvccpb.ts";
import * as raftpb from "../../src/proto/raftpb.ts";
import * as snappb from "../../src/proto/snappb.ts";
import { protoSources } from "../../src/proto/sources.ts";
import * as v3electionpb from "../../src/proto/v3electionpb.ts";
import * as v3lockpb from "../../src/proto/v3lockpb.ts";
import * as walpb from "../../src/proto/walpb.ts";
import type { SeededRandom } from "../harness/random.ts";

/** A 64-bit integer in the form that protobufjs reads: its halves. */
class Wide {
  readonly value: bigint;
  readonly low: number;
  readonly high: number;

  constructor(value: bigint) {
    this.value = value;
    this.low = Number(BigInt.asIntN(32, value));
    this.high = Number(BigInt.asIntN(32, value >> 32n));
  }
}

type Fields = Record<string, unknown>;

/** One message type, in both implementations. */
export interface Pair {
  readonly name: string;
  readonly ours: Codec<Fields>;
  readonly reference: protobuf.Type;
}

const root = new protobuf.Root();
const proto2 = new Set<string>();
for (const text of Object.values(protoSources)) {
  const parsed = protobuf.parse(text, root, { keepCase: true });
  if (/syntax\s*=\s*"proto2"/.test(text)) proto2.add(parsed.package!);
}
root.resolveAll();

const modules = [authpb, etcdserverpb, leasepb, membershippb, mvccpb, raftpb, snappb, v3electionpb, v3lockpb, walpb];
export const pairs: readonly Pair[] = modules
  .flatMap((module) => Object.values(module) as unknown[])
  .filter((value): value is Codec<Fields> => typeof value === "object" && value !== null && "typeName" in value)
  .map((ours) => ({ name: ours.typeName, ours, reference: root.lookupType(ours.typeName) }));

const byReference = new Map(pairs.map((pair) => [pair.reference, pair]));

export function pairOf(reference: protobuf.Type): Pair {
  const pair = byReference.get(reference);
  if (pair === undefined) throw new Error(`no codec was generated for ${reference.fullName}`);
  return pair;
}

/** Fields in the order of their numbers, which is also the property order of our messages. */
export function fieldsOf({ ours, reference }: Pair): [string, protobuf.Field][] {
  const fields = [...reference.fieldsArray].sort((a, b) => a.id - b.id);
  const members = Object.keys(ours.create());
  if (members.length !== fields.length) throw new Error(`${reference.fullName} has fields that its codec lacks`);
  return members.map((member, i) => [member, fields[i]!]);
}

const DEPTH_MAX = 3;

/** Random content in protobufjs's form: 64-bit integers as Wide. Default values may be missing. */
export function randomFields(pair: Pair, random: SeededRandom, depth = 0): Fields {
  const fields: Fields = {};
  const always = proto2.has(pair.name.split(".")[0]!);
  const chosen = new Map(pair.reference.oneofsArray.map((oneof) => [oneof, random.pick(oneof.fieldsArray)]));
  for (const [, field] of fieldsOf(pair)) {
    const isMessage = field.resolvedType instanceof protobuf.Type;
    if (isMessage && depth >= DEPTH_MAX) continue;
    if (field.partOf) {
      if (chosen.get(field.partOf) === field && random.chance(0.8))
        fields[field.name] = randomValue(field, random, depth);
    } else if (field.repeated) {
      const count = random.pick([0, 1, 2, 5]);
      if (count > 0) fields[field.name] = Array.from({ length: count }, () => randomValue(field, random, depth));
    } else if (isMessage) {
      if (random.chance(0.6)) fields[field.name] = randomValue(field, random, depth);
    } else {
      const value = random.chance(0.2) ? zeroOf(field) : randomValue(field, random, depth);
      // Proto2 scalars are always on the wire, except empty bytes; those of proto3 unless they are default values.
      if (always ? field.type !== "bytes" || !isZero(value) : !isZero(value)) fields[field.name] = value;
    }
  }
  return fields;
}

function randomValue(field: protobuf.Field, random: SeededRandom, depth: number): unknown {
  if (field.resolvedType instanceof protobuf.Type) return randomFields(pairOf(field.resolvedType), random, depth + 1);
  if (field.resolvedType instanceof protobuf.Enum) {
    const known = Object.values(field.resolvedType.values);
    return random.chance(0.1) ? random.pick([77, -1, 2 ** 31 - 1]) : random.pick(known);
  }
  switch (field.type) {
    case "bool":
      return random.chance(0.5);
    case "int32":
      return random.pick([0, 1, -1, 127, 128, 2 ** 31 - 1, -(2 ** 31), random.below(2 ** 31)]);
    case "uint32":
      return random.pick([0, 1, 127, 128, 16383, 16384, 2 ** 32 - 1, random.below(2 ** 32)]);
    case "int64":
    case "uint64":
      return randomWide(field, random);
    case "bytes":
      return Buffer.from(Array.from({ length: random.pick([0, 1, 23, 24, 127, 128, 300]) }, () => random.below(256)));
    case "string":
      return random.pick(["", "a", "peer-1", "ключ", "\ufeffmarked", "🗝", "x".repeat(200), "\0"]);
    default:
      throw new Error(`${field.fullName}: no random values for type ${field.type}`);
  }
}

/** Any 64 bits where the codec keeps all of them, as in ids; elsewhere an exact number. */
function randomWide(field: protobuf.Field, random: SeededRandom): Wide {
  const unsigned = field.type === "uint64";
  if (isBig(field)) {
    const value = random.pick([
      0n,
      1n,
      2n ** 31n,
      2n ** 32n - 1n,
      2n ** 53n + 1n,
      2n ** 63n - 1n,
      2n ** 63n,
      2n ** 64n - 1n,
    ]);
    return new Wide(unsigned ? value : BigInt.asIntN(64, value));
  }
  const size = random.pick([0, 1, 127, 128, 2 ** 28 - 1, 2 ** 28, 2 ** 32 - 1, 2 ** 32, 2 ** 35, 2 ** 53 - 1]);
  return new Wide(BigInt(!unsigned && random.chance(0.3) ? -size : size));
}

const bigness = new Map<protobuf.Field, boolean>();

/** True when our message has this field as bigint. */
export function isBig(field: protobuf.Field): boolean {
  let big = bigness.get(field);
  if (big === undefined) {
    const pair = pairOf(field.parent as protobuf.Type);
    const member = fieldsOf(pair).find(([, other]) => other === field)![0];
    const one = pair.reference.encode({ [field.name]: field.repeated ? [1] : 1 }).finish();
    const value = pair.ours.decode(one)[member];
    big = typeof (Array.isArray(value) ? value[0] : value) === "bigint";
    bigness.set(field, big);
  }
  return big;
}

function zeroOf(field: protobuf.Field): unknown {
  if (field.resolvedType instanceof protobuf.Enum) return 0;
  if (field.type === "bool") return false;
  if (field.type === "string") return "";
  if (field.type === "bytes") return Buffer.alloc(0);
  return field.type.endsWith("64") ? new Wide(0n) : 0;
}

function isZero(value: unknown): boolean {
  if (value instanceof Wide) return value.value === 0n;
  if (value instanceof Uint8Array) return value.length === 0;
  return value === 0 || value === "" || value === false;
}

/** The same content in our codec's form, with defaults in missing fields. */
export function expectedOf(pair: Pair, fields: Fields): Fields {
  const expected: Fields = {};
  for (const [member, field] of fieldsOf(pair)) {
    const value = fields[field.name];
    if (field.repeated) expected[member] = ((value ?? []) as unknown[]).map((one) => expectedValue(field, one));
    else if (value !== undefined) expected[member] = expectedValue(field, value);
    else if (field.partOf || field.resolvedType instanceof protobuf.Type) expected[member] = undefined;
    else expected[member] = expectedValue(field, zeroOf(field));
  }
  return expected;
}

function expectedValue(field: protobuf.Field, value: unknown): unknown {
  if (field.resolvedType instanceof protobuf.Type) return expectedOf(pairOf(field.resolvedType), value as Fields);
  if (value instanceof Wide) return isBig(field) ? value.value : Number(value.value);
  return value instanceof Uint8Array ? hex(value) : value;
}

/** A decoded message with comparable bytes. */
export function comparable(value: unknown): unknown {
  if (value instanceof Uint8Array) return hex(value);
  if (Array.isArray(value)) return value.map(comparable);
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([name, member]) => [name, comparable(member)]));
}

const hex = (bytes: Uint8Array): string => `0x${Buffer.from(bytes).toString("hex")}`;
