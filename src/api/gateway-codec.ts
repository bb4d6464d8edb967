import { decodeJson, JsonMessageError } from "./gateway-decode.ts";
import { encodeJson, type StringStyle } from "./gateway-encode.ts";
import { JsonScanner, JsonSyntaxError } from "./gateway-json.ts";
import { Schema } from "./gateway-schema.ts";

/** The messages of a request body, and what was wrong behind them. */
export interface RequestMessages {
  readonly messages: readonly Uint8Array[];
  readonly error: string | undefined;
}

/** JSON to messages and back, for any message of etcd's API, by its full name. Loaded with the first gateway request. */
export class JsonCodec {
  readonly #schema = new Schema();

  /**
   * Reads the first value of the body, and with `all` the ones behind it. An empty body is an empty message, or with
   * `all` none.
   */
  read(typeName: string, body: Uint8Array, all: boolean): RequestMessages {
    const shape = this.#schema.message(typeName);
    const scanner = new JsonScanner(body);
    const messages: Uint8Array[] = [];
    try {
      for (let value = scanner.next(); value !== undefined; value = all ? scanner.next() : undefined) {
        messages.push(decodeJson(shape, body, value));
      }
    } catch (error) {
      if (!(error instanceof JsonSyntaxError || error instanceof JsonMessageError)) throw error;
      return { messages, error: error.message };
    }
    return { messages, error: undefined };
  }

  write(typeName: string, message: Uint8Array, style: StringStyle): string {
    return encodeJson(this.#schema.message(typeName), message, style);
  }
}
