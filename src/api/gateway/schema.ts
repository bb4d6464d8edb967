/**
 * The messages of the JSON gateway as their .proto files describe them: names, numbers and kinds of their fields.
 * Loading this file loads protobufjs, so the gateway does it at its first request and not at the start of the server.
 */
import protobuf from "protobufjs";
import { protoSources } from "../../proto/sources.ts";

export type FieldKind = "bool" | "int32" | "uint32" | "int64" | "uint64" | "string" | "bytes" | "enum" | "message";

export interface FieldShape {
  /** As the .proto file spells it, which is also the name in answers. */
  readonly name: string;
  /** In lowerCamelCase; requests may use either. */
  readonly jsonName: string;
  readonly number: number;
  /** Its place in the .proto file. */
  readonly order: number;
  /** `"name":`, as answers have it. */
  readonly label: string;
  readonly kind: FieldKind;
  readonly repeated: boolean;
  /** Full name of the oneof that it belongs to. */
  readonly oneof: string | undefined;
  /** Of a field of kind `message`. */
  readonly message: MessageShape | undefined;
  /** Of a field of kind `enum`: numbers by name, and names by number. */
  readonly values: ReadonlyMap<string, number> | undefined;
  readonly names: ReadonlyMap<number, string> | undefined;
}

export interface MessageShape {
  /** Full name, `package.Message`. */
  readonly name: string;
  /** In the order of the .proto file, which is the order in answers. */
  readonly fields: readonly FieldShape[];
  /** By either name. */
  readonly byName: ReadonlyMap<string, FieldShape>;
  readonly byNumber: ReadonlyMap<number, FieldShape>;
}

/** Their places are bits of one number. */
const FIELDS_MAX = 31;

/** Finds messages by their full names. Throws when there is none: the caller has the name from the same source. */
export class Schema {
  readonly #root: protobuf.Root;
  readonly #shapes = new Map<string, MessageShape>();

  constructor() {
    this.#root = new protobuf.Root();
    for (const text of Object.values(protoSources)) protobuf.parse(text, this.#root, { keepCase: true });
    this.#root.resolveAll();
  }

  message(fullName: string): MessageShape {
    return this.#shapeOf(this.#root.lookupType(fullName));
  }

  #shapeOf(type: protobuf.Type): MessageShape {
    const name = type.fullName.slice(1);
    const known = this.#shapes.get(name);
    if (known !== undefined) return known;
    const fields: FieldShape[] = [];
    const byName = new Map<string, FieldShape>();
    const byNumber = new Map<number, FieldShape>();
    const shape: MessageShape = { name, fields, byName, byNumber };
    // Known before its fields are: a transaction holds transactions.
    this.#shapes.set(name, shape);
    for (const field of type.fieldsArray) fields.push(this.#fieldOf(field, fields.length));
    if (fields.length > FIELDS_MAX) throw new Error(`message ${name}: more than ${FIELDS_MAX} fields`);
    for (const field of fields) {
      byName.set(field.name, field);
      byNumber.set(field.number, field);
    }
    for (const field of fields) byName.set(field.jsonName, field);
    return shape;
  }

  #fieldOf(field: protobuf.Field, order: number): FieldShape {
    if (field instanceof protobuf.MapField) throw new Error(`map field ${field.fullName}: the gateway has no maps yet`);
    const { resolvedType, partOf } = field.resolve();
    const values = resolvedType instanceof protobuf.Enum ? new Map(Object.entries(resolvedType.values)) : undefined;
    return {
      name: field.name,
      jsonName: lowerCamel(field.name),
      number: field.id,
      order,
      label: `"${field.name}":`,
      kind: resolvedType === null ? (field.type as FieldKind) : values === undefined ? "message" : "enum",
      repeated: field.repeated,
      oneof: partOf?.fullName.slice(1),
      message: resolvedType instanceof protobuf.Type ? this.#shapeOf(resolvedType) : undefined,
      values,
      names: values === undefined ? undefined : new Map([...values].map(([name, number]) => [number, name])),
    };
  }
}

/** As protoc makes JSON names: underscores go, and the letter behind each becomes a capital. */
function lowerCamel(name: string): string {
  return name.replace(/_+([a-zA-Z0-9]?)/g, (_, letter: string) => letter.toUpperCase());
}
