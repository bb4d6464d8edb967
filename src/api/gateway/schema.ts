/** The JSON gateway's messages as described by their .proto files: names, numbers and kinds of fields. */
import { enumShapes, type FieldRow, messageShapes } from "../../proto/shapes.ts";

export type FieldKind = "bool" | "int32" | "uint32" | "int64" | "uint64" | "string" | "bytes" | "enum" | "message";

export interface FieldShape {
  /** As in the .proto file; also the name in responses. */
  readonly name: string;
  /** In lowerCamelCase; requests may use either. */
  readonly jsonName: string;
  readonly number: number;
  /** Its position in the .proto file. */
  readonly order: number;
  /** `"name":`, as in responses. */
  readonly label: string;
  readonly kind: FieldKind;
  readonly repeated: boolean;
  /** Full name of its oneof. */
  readonly oneof: string | undefined;
  /** For a field of kind `message`. */
  readonly message: MessageShape | undefined;
  /** For a field of kind `enum`: numbers by name, and names by number. */
  readonly values: ReadonlyMap<string, number> | undefined;
  readonly names: ReadonlyMap<number, string> | undefined;
}

export interface MessageShape {
  /** Full name, `package.Message`. */
  readonly name: string;
  /** In .proto order, the order of responses. */
  readonly fields: readonly FieldShape[];
  /** The field with this name, in either form, at the start of `text`. */
  find(text: Uint8Array, length: number): FieldShape | undefined;
  readonly byNumber: ReadonlyMap<number, FieldShape>;
}

/** Their positions are bits of one number. */
const FIELDS_MAX = 31;

/** Finds messages by full name. Throws for an unknown one: the caller's name comes from the same source. */
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
    // Registered before its fields: a transaction contains transactions.
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

/** Fields by name, found without creating a string from untrusted input. */
class FieldNames {
  /** By name length. */
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

/** protoc's JSON names: underscores are removed, and the following letter is capitalised. */
function lowerCamel(name: string): string {
  return name.replace(/_+([a-zA-Z0-9]?)/g, (_, letter: string) => letter.toUpperCase());
}
