import { MessageDecoder } from "./decode.ts";
import { encodeJson, type StringStyle } from "./encode.ts";
import { JsonPieces } from "./pieces.ts";
import { Schema } from "./schema.ts";

/** Converts JSON to messages and back, for any message of etcd's API, by full name. */
export class JsonCodec {
  readonly #schema = new Schema();

  /** Decodes one JSON value as a message of up to `bytesMax` bytes. */
  decoder(typeName: string, bytesMax: number): MessageDecoder {
    return new MessageDecoder(this.#schema.message(typeName), bytesMax);
  }

  /** The JSON of a small message. */
  write(typeName: string, message: Uint8Array, style: StringStyle): string {
    return encodeJson(this.#schema.message(typeName), message, style);
  }

  /** Converts a message of any size to JSON, piece by piece. */
  pieces(typeName: string, style: StringStyle): JsonPieces {
    return new JsonPieces(this.#schema.message(typeName), style);
  }
}
