/** File descriptors built from .proto texts, for server reflection. protobufjs is loaded on the first request only. */
import protobuf from "protobufjs";
import descriptor from "protobufjs/ext/descriptor.js";

export interface DescriptorIndex {
  /** The serialized descriptors of a file and all its imports, the file first. */
  fileByName(name: string): readonly Uint8Array[] | undefined;
  /** The same for the file that defines a message, field, enum, service or method, by full name without leading dot. */
  fileOfSymbol(symbol: string): readonly Uint8Array[] | undefined;
}

interface ProtoFile {
  readonly bytes: Uint8Array;
  readonly imports: readonly string[];
}

/** Options and extensions are omitted: callers do not need them, and not all their definitions are here. */
export function buildDescriptors(sources: Readonly<Record<string, string>>): DescriptorIndex {
  const root = new protobuf.Root();
  const parsed = Object.entries(sources).map(([name, text]) => {
    // Parsed twice: alone to know what this file defines, and with all others to resolve names.
    protobuf.parse(text, root, { keepCase: true });
    const own = protobuf.parse(text, new protobuf.Root(), { keepCase: true });
    const imports = [...(own.imports ?? []), ...(own.weakImports ?? [])].filter((path) => path in sources);
    return { name, own, imports, syntax: /^\s*syntax\s*=\s*"(\w+)"/m.exec(text)?.[1] ?? "proto2" };
  });
  root.resolveAll();

  const files = new Map<string, ProtoFile>();
  const symbols = new Map<string, string>();
  for (const { name, own, imports, syntax } of parsed) {
    const packageName = own.package ?? "";
    const scope = packageName === "" ? own.root : own.root.lookup(packageName);
    const messages: object[] = [];
    const enums: object[] = [];
    const services: object[] = [];
    for (const { fullName } of (scope as protobuf.Namespace).nestedArray) {
      const object = root.lookup(fullName);
      if (object instanceof protobuf.Type) messages.push(convert(object, syntax));
      else if (object instanceof protobuf.Enum) enums.push(convert(object, syntax));
      else if (object instanceof protobuf.Service) services.push(convert(object, syntax));
      else continue;
      addSymbols(symbols, object, name);
    }
    const file = {
      name,
      package: packageName,
      dependency: imports,
      messageType: messages,
      enumType: enums,
      service: services,
      ...(syntax === "proto3" ? { syntax } : {}),
    };
    const type = descriptor.FileDescriptorProto as unknown as protobuf.Type;
    files.set(name, { bytes: type.encode(type.fromObject(file)).finish(), imports });
  }

  const withImports = (name: string): readonly Uint8Array[] | undefined => {
    if (!files.has(name)) return undefined;
    const names = new Set([name]);
    for (const each of names) for (const path of files.get(each)!.imports) names.add(path);
    return [...names].map((each) => files.get(each)!.bytes);
  };
  return {
    fileByName: withImports,
    fileOfSymbol(symbol) {
      const name = symbols.get(symbol);
      return name === undefined ? undefined : withImports(name);
    },
  };
}

interface MessageJson {
  name: string;
  field?: { number: number; typeName?: string }[];
  nestedType?: MessageJson[];
}

function convert(object: protobuf.ReflectionObject, syntax: string): object {
  const made = (object as unknown as { toDescriptor(edition: string): protobuf.Message }).toDescriptor(syntax);
  const json = dropOptions(made.toJSON()) as MessageJson;
  if (object instanceof protobuf.Type) qualifyTypes(json, object);
  return json;
}

/** protobufjs leaves type names as written in the source; tools need absolute names. */
function qualifyTypes(json: MessageJson, type: protobuf.Type): void {
  for (const field of json.field ?? []) {
    const target = type.fieldsById[field.number]?.resolve();
    if (target instanceof protobuf.MapField) {
      const entry = json.nestedType?.find((nested) => nested.name === field.typeName);
      if (entry === undefined) throw new Error(`map field ${target.fullName} has no entry type`);
      entry.name = entryName(target.name);
      field.typeName = `${type.fullName}.${entry.name}`;
      const value = entry.field?.find((part) => part.number === 2);
      if (value !== undefined && target.resolvedType) value.typeName = target.resolvedType.fullName;
    } else if (target?.resolvedType) field.typeName = target.resolvedType.fullName;
  }
  for (const nested of json.nestedType ?? []) {
    const inner = type.get(nested.name);
    if (inner instanceof protobuf.Type) qualifyTypes(nested, inner);
  }
}

/** protoc's name for the hidden message of a map: `by_name` has `ByNameEntry`. */
function entryName(field: string): string {
  return `${field.replace(/(?:^|_)([a-z])/g, (_, letter: string) => letter.toUpperCase())}Entry`;
}

function dropOptions(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(dropOptions);
  if (typeof value !== "object" || value === null) return value;
  const out: Record<string, unknown> = {};
  for (const [key, part] of Object.entries(value)) {
    // A map entry is marked by an option, the only option that tools need.
    const mapEntry = key === "options" && (part as { mapEntry?: boolean }).mapEntry === true;
    if (mapEntry) out[key] = { mapEntry: true };
    else if (key !== "options" && key !== "extension") out[key] = dropOptions(part);
  }
  return out;
}

function addSymbols(symbols: Map<string, string>, object: protobuf.ReflectionObject, file: string): void {
  symbols.set(object.fullName.slice(1), file);
  if (object instanceof protobuf.Type) for (const field of object.fieldsArray) addSymbols(symbols, field, file);
  if (object instanceof protobuf.Service) for (const method of object.methodsArray) addSymbols(symbols, method, file);
  if (object instanceof protobuf.Namespace) for (const nested of object.nestedArray) addSymbols(symbols, nested, file);
}
