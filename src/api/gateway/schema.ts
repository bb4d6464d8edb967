/** The messages of the JSON gateway as their .proto files describe them: names, numbers and kinds of their fields. */
import { enumShapes, type FieldRow, messageShapes } from "../../proto/shapes.ts";

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
  /** The field with this name, of either kind, at the start of `text`. */
  find(text: Uint8Array, length: number): FieldShape | undefined;
  readonly byNumber: ReadonlyMap<number, FieldShape>;
}

/** Their places are bits of one number. */
const FIELDS_MAX = 31;

/** Finds messages by their full names. Throws when there is none: the caller has the name from the same source. */
export class Schema {
  readonly #shapes = new Map<string, MessageShape>();

  message(fullName: string): MessageShape {
    const known = this.#shapes.get(fullName);
    if (known !== undefined) return known;
    const rows = messageShapes[fullName];
    if (rows === undefined) throw new Error(`no message ${fullName}`);
    if (rows.length > FIELDS_MAX) throw new Error(`message ${fullName}: more than ${FIELDS_MAX} fields`);
    const fields: FieldShape[] = [];
    const byNumber = new Map<number, FieldShape>();
    const names = new FieldNames();
    const find = (text: Uint8Array, length: number): FieldShape | undefined => names.find(text, length);
    const shape: MessageShape = { name: fullName, fields, find, byNumber };
    // Known before its fields are: a transaction holds transactions.
    this.#shapes.set(fullName, shape);
    for (const row of rows) {
      const field = this.#fieldOf(row, fields.length);
      fields.push(field);
      byNumber.set(field.number, field);
      names.add(field.name, field);
      if (field.jsonName !== field.name) names.add(field.jsonName, field);
    }
    return shape;
  }

  #fieldOf([name, number, type, repeated, oneof]: FieldRow, order: number): FieldShape {
    const numbers = enumShapes[type];
    const values = numbers === undefined ? undefined : new Map(Object.entries(numbers));
    const message = type in messageShapes ? this.message(type) : undefined;
    return {
      name,
      jsonName: lowerCamel(name),
      number,
      order,
      label: `"${name}":`,
      kind: message !== undefined ? "message" : values !== undefined ? "enum" : (type as FieldKind),
      repeated,
      oneof: oneof === "" ? undefined : oneof,
      message,
      values,
      names: values === undefined ? undefined : new Map([...values].map(([each, value]) => [value, each])),
    };
  }
}

/** Fields by their names, found without making a string of what may be no name at all. */
class FieldNames {
  /** By the length of the name. */
  readonly #entries: { readonly bytes: Uint8Array; readonly field: FieldShape }[][] = [];

  add(name: string, field: FieldShape): void {
    const bytes = Buffer.from(name);
    while (this.#entries.length <= bytes.length) this.#entries.push([]);
    this.#entries[bytes.length]!.push({ bytes, field });
  }

  find(text: Uint8Array, length: number): FieldShape | undefined {
    const entries = this.#entries[length];
    if (entries === undefined) return undefined;
    for (const { bytes, field } of entries) {
      let at = 0;
      while (at < length && bytes[at] === text[at]) at++;
      if (at === length) return field;
    }
    return undefined;
  }
}

/** As protoc makes JSON names: underscores go, and the letter behind each becomes a capital. */
function lowerCamel(name: string): string {
  return name.replace(/_+([a-zA-Z0-9]?)/g, (_, letter: string) => letter.toUpperCase());
}
