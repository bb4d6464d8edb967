import { defaultOf, type Setting } from "./definition.ts";
import { allSettings, definitions, type SettingName, type SettingValue } from "./definitions.ts";

/**
 * The value of each setting from any source (default, command line, environment, file), and which were set explicitly.
 * Durations are milliseconds. This is the intermediate form; the server gets `Config`.
 */
export class Settings {
  readonly #values = new Map<SettingName, unknown>();
  readonly #explicit = new Set<SettingName>();

  constructor() {
    for (const setting of allSettings) this.#values.set(setting.name, defaultOf(setting));
  }

  /** Sets a value from text. Throws `GoValueError` with the text of Go's flag package. */
  set(name: SettingName, text: string): void {
    const { kind }: Setting = definitions[name];
    this.#explicit.add(name);
    this.#values.set(name, kind.parse(text, this.get(name)));
  }

  /** Sets a value from the file, after its type was checked. Throws `GoValueError`. */
  setFromFile(name: SettingName, value: never): void {
    const { kind }: Setting = definitions[name];
    this.#explicit.add(name);
    this.#values.set(name, kind.fromFile(value, this.get(name)));
  }

  /** Changes a value that was not set explicitly: a default that depends on other settings. */
  setDefault<N extends SettingName>(name: N, value: SettingValue<N>): void {
    this.#values.set(name, value);
  }

  get<N extends SettingName>(name: N): SettingValue<N> {
    return this.#values.get(name) as SettingValue<N>;
  }

  isSet(name: SettingName): boolean {
    return this.#explicit.has(name);
  }

  /** True when the value differs from the setting's default. */
  isChanged(name: SettingName): boolean {
    return comparable(this.get(name)) !== comparable(defaultOf<unknown>(definitions[name]));
  }
}

function comparable(value: unknown): string {
  if (Array.isArray(value)) return value.map((item) => (typeof item === "string" ? item : item.text)).join(",");
  return String(value);
}
