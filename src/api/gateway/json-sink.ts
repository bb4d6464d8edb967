/** What the parser of JSON gives to the code that makes something of it. */

/** Whether a string's content is needed, or only skipped. */
export type StringUse = "content" | "nothing";

/** Receives the tokens. The lexer knows a token's position and raw text. */
export interface JsonSink {
  objectStart(): void;
  objectEnd(): void;
  arrayStart(): void;
  arrayEnd(): void;
  literal(word: "true" | "false" | "null"): void;
  /** The lexer has the raw text. */
  number(): void;
  /** A string begins: a member name, or a value. */
  stringStart(isName: boolean): StringUse;
  /** The next bytes of its content, in UTF-8. */
  stringPart(buf: Uint8Array, start: number, end: number): void;
  /**
   * The same for a long run inside the string, if the sink can take its kind of text at once; returns the number of
   * bytes taken. -1: no runs for the rest of this string.
   */
  stringRun(buf: Buffer, start: number, end: number): number;
  stringEnd(): void;
  /** The current string is invalid: bytes that are not UTF-8, or a lone surrogate. */
  badString(what: "invalid UTF-8" | BadEscape): void;
}

/** A lone surrogate, and up to FOLLOWING_BYTES of the following bytes of text, which Go shows. */
export interface BadEscape {
  /** Their offset in the value. */
  readonly from: number;
  /** Filled while the text arrives: complete once the value is. */
  readonly following: number[];
}

export const FOLLOWING_BYTES = 6;
