import { MessageDecoder } from "./decode.ts";
import { encodeJson, type StringStyle } from "./encode.ts";
import { JsonPieces } from "./pieces.ts";
import { Schema } from "./schema.ts";

/** JSON to messages and back, for any message of etcd's API, by its full name. */
export class JsonCodec {
  readonly #schema = new Schema();

  /** Reads one JSON value as a message, of which it keeps up to `bytesMax` bytes. */
  decoder(typeName: string, bytesMax: number): MessageDecoder {
    return new MessageDecoder(this.#schema.message(typeName), bytesMax);
  }

  /** The JSON of a message that is not large. */
  write(typeName: string, message: Uint8Array, style: StringStyle): string {
    return encodeJson(this.#schema.message(typeName), message, style);
  }

  /** Makes JSON of a message of any size, piece by piece. */
  pieces(typeName: string, style: StringStyle): JsonPieces {
    return new JsonPieces(this.#schema.message(typeName), style);
  }
}
