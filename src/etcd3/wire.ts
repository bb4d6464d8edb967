/**
 * Messages in the form of the module `etcd3` (names of the .proto files, 64-bit numbers as texts, absent messages as null,
 * values of enumerations as their names), and how they become those of this client.
 */
import type { Codec, MethodType } from "../base/protobuf.ts";
import * as authpb from "../proto/authpb.ts";
import * as etcdserverpb from "../proto/etcdserverpb.ts";
import * as mvccpb from "../proto/mvccpb.ts";
import { enumShapes, messageShapes } from "../proto/shapes.ts";

export const Services = {
  KV: etcdserverpb.KVService,
  Watch: etcdserverpb.WatchService,
  Lease: etcdserverpb.LeaseService,
  Cluster: etcdserverpb.ClusterService,
  Maintenance: etcdserverpb.MaintenanceService,
  Auth: etcdserverpb.AuthService,
} as const;

export type ServiceName = keyof typeof Services;

type Message = object;

/** The method by its name there, such as `range` of KV; undefined when there is none. */
export function methodOf(service: ServiceName, method: string): MethodType<Message, Message> | undefined {
  const name = method.slice(0, 1).toUpperCase() + method.slice(1);
  return Reflect.get(Services[service], name);
}

/** How the fields of a message are called there and here. */
interface Field {
  readonly there: string;
  readonly here: string;
  readonly type: string;
  readonly repeated: boolean;
  /** One of several, of which only the one that is there is shown. */
  readonly isChoice: boolean;
  /** The value here when it is absent; undefined for messages and parts of a oneof. */
  readonly usual: unknown;
}

const codecs = new Map<string, Codec<Message>>();
for (const module of [etcdserverpb, mvccpb, authpb]) {
  for (const each of Object.values(module)) if (isCodec(each)) codecs.set(each.typeName, each);
}

function isCodec(value: unknown): value is Codec<Message> {
  return typeof value === "object" && value !== null && "typeName" in value;
}

const fieldsOf = new Map<string, readonly Field[]>();

function fields(type: string): readonly Field[] {
  const known = fieldsOf.get(type);
  if (known !== undefined) return known;
  const usual = codecOf(type).create();
  const names = new Map(Object.keys(usual).map((name) => [plain(name), name]));
  const made = (messageShapes[type] ?? []).map(([there, , fieldType, repeated, oneof]): Field => {
    const here = names.get(plain(there)) ?? there;
    return { there, here, type: fieldType, repeated, isChoice: oneof !== "", usual: Reflect.get(usual, here) };
  });
  fieldsOf.set(type, made);
  return made;
}

const plain = (name: string): string => name.replaceAll("_", "").toLowerCase();

function codecOf(type: string): Codec<Message> {
  const codec = codecs.get(type);
  if (codec === undefined) throw new Error(`no message ${type}`);
  return codec;
}

/** A request, from what a user of the module wrote. */
export function toMessage(type: string, value: object): Message {
  const message = codecOf(type).create();
  for (const field of fields(type)) {
    const given: unknown = Reflect.get(value, field.there);
    if (given === undefined || given === null) continue;
    Reflect.set(message, field.here, field.repeated ? listOf(given, field) : wireValue(given, field));
  }
  return message;
}

const listOf = (given: unknown, field: Field): unknown[] =>
  Array.isArray(given) ? given.map((each) => wireValue(each, field)) : [];

function wireValue(given: unknown, { type, there, usual, repeated }: Field): unknown {
  if (type === "int64" || type === "uint64") {
    const isId = typeof usual === "bigint" || (usual === undefined && there === "lease") || repeated;
    return isId ? BigInt.asUintN(64, BigInt(`${given}`)) : Number(given);
  }
  if (type === "bytes") return typeof given === "string" ? Buffer.from(given) : given;
  const names = enumShapes[type];
  if (names !== undefined) return typeof given === "number" ? given : (names[enumName(`${given}`)] ?? 0);
  return typeof given === "object" && given !== null && type in messageShapes ? toMessage(type, given) : given;
}

/** `NotEqual` or `NOT_EQUAL`. */
const enumName = (text: string): string => text.replaceAll(/([a-z])([A-Z])/g, "$1_$2").toUpperCase();

/** A response, as a user of the module gets it. */
export function fromMessage(type: string, message: Message): object {
  const value: Record<string, unknown> = {};
  for (const field of fields(type)) {
    const found: unknown = Reflect.get(message, field.here);
    if (found === undefined && field.isChoice) continue;
    value[field.there] = Array.isArray(found) ? found.map((each) => shown(each, field)) : shown(found, field);
  }
  return value;
}

function shown(found: unknown, { type, there }: Field): unknown {
  if (found === undefined) return type in messageShapes ? null : undefined;
  // Leases are signed there, ids of members and clusters are not.
  if (typeof found === "bigint") return `${there === "ID" || there === "lease" ? BigInt.asIntN(64, found) : found}`;
  if (type === "int64" || type === "uint64") return `${found}`;
  if (found instanceof Uint8Array) return Buffer.from(found.buffer, found.byteOffset, found.length);
  const names = enumShapes[type];
  if (names !== undefined) return Object.keys(names).find((name) => names[name] === found) ?? found;
  return typeof found === "object" && found !== null ? fromMessage(type, found) : found;
}
