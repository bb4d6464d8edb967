/** Reading JSON from outside: what is not of the expected kind is taken for absent. */
type Fields = Readonly<Record<string, unknown>>;

export const isObject = (value: unknown): value is Fields =>
  typeof value === "object" && value !== null && !Array.isArray(value);

/** Undefined when it is no JSON. */
export function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

export function objectIn(value: unknown, name: string): Fields | undefined {
  const inner = isObject(value) ? value[name] : undefined;
  return isObject(inner) ? inner : undefined;
}

export function numberIn(value: unknown, name: string): number | undefined {
  const inner = isObject(value) ? value[name] : undefined;
  return typeof inner === "number" && Number.isSafeInteger(inner) ? inner : undefined;
}

export function textIn(value: unknown, name: string): string | undefined {
  const inner = isObject(value) ? value[name] : undefined;
  return typeof inner === "string" ? inner : undefined;
}
