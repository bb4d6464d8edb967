/**
 * JSON as Go's encoding/json writes the structs of etcd's messages: names of the .proto file in the order of their
 * numbers, bytes in base64, default values omitted.
 */

/**
 * A message by its JSON names, each with its property: `true` for the name in camel case, or a nested message with its
 * shape.
 */
export interface Shape {
  readonly [name: string]: true | string | readonly [property: string, shape: Shape];
}

export type Json = string;

/** The members of the message's object, without braces. */
export function members(message: object, shape: Shape): Json {
  const parts: string[] = [];
  for (const [name, how] of Object.entries(shape)) {
    const property = how === true ? camel(name) : typeof how === "string" ? how : how[0];
    const value = (message as Readonly<Record<string, unknown>>)[property];
    if (isDefault(value)) continue;
    parts.push(`"${name}":${valueJson(value, Array.isArray(how) ? how[1] : undefined)}`);
  }
  return parts.join(",");
}

/** As `object`, in pieces: one per message of a list. */
export function* pieces(message: object | undefined, shape: Shape): Generator<Json, void, void> {
  const lists = Object.entries(shape).filter(([, how]) => Array.isArray(how) && isList(message, how[0]));
  if (message === undefined || lists.length === 0) return yield object(message, shape);
  let separator = "{";
  for (const [name, how] of Object.entries(shape)) {
    const [property, inner] = Array.isArray(how) ? (how as readonly [string, Shape]) : [undefined, undefined];
    const list = property === undefined ? undefined : (message as Readonly<Record<string, unknown>>)[property];
    if (inner !== undefined && Array.isArray(list)) {
      if (list.length === 0) continue;
      yield `${separator}"${name}":`;
      yield* listPieces(list as object[], (element) => object(element, inner));
    } else {
      const member = members(message, { [name]: how });
      if (member === "") continue;
      yield separator + member;
    }
    separator = ",";
  }
  yield separator === "{" ? "{}" : "}";
}

/** As `array`, with one piece per element. */
export function* listPieces<T>(values: readonly T[], json: (value: T) => Json): Generator<Json, void, void> {
  for (const [i, value] of values.entries()) yield (i === 0 ? "[" : ",") + json(value);
  yield values.length === 0 ? "[]" : "]";
}

const isList = (message: object | undefined, property: string) =>
  Array.isArray((message as Readonly<Record<string, unknown>> | undefined)?.[property]);

export const object = (message: object | undefined, shape: Shape): Json =>
  message === undefined ? "null" : `{${members(message, shape)}}`;

export const array = <T>(values: readonly T[], json: (value: T) => Json): Json => `[${values.map(json).join(",")}]`;

/** Go's escapes: those of JSON, and `<`, `>`, `&`, U+2028 and U+2029. */
export function string(text: string): Json {
  return JSON.stringify(text.replace(/\p{Surrogate}/gu, "\ufffd")).replace(/[<>&\u2028\u2029]/g, (char) => {
    return `\\u${char.charCodeAt(0).toString(16).padStart(4, "0")}`;
  });
}

const camel = (name: string) => name.replace(/_([a-z])/g, (_, letter: string) => letter.toUpperCase());

function isDefault(value: unknown): boolean {
  if (value === undefined || value === 0 || value === 0n || value === false || value === "") return true;
  return (value instanceof Uint8Array || Array.isArray(value)) && value.length === 0;
}

function valueJson(value: unknown, shape: Shape | undefined): Json {
  if (Array.isArray(value)) return array(value, (element) => valueJson(element, shape));
  if (value instanceof Uint8Array) return bytes(value);
  if (typeof value === "string") return string(value);
  if (shape !== undefined) return object(value as object, shape);
  return String(value);
}

export function bytes(value: Uint8Array): Json {
  return `"${Buffer.from(value.buffer, value.byteOffset, value.length).toString("base64")}"`;
}
