/** Splits a line typed by the user into words, some of them quoted. Source: etcd v3.7, etcdctl `Argify`. */
import { decodeLossless } from "../base/lossless-text.ts";
import { unquotePrefix } from "../base/quote.ts";
import { EXIT, ExitError } from "./exit.ts";

/** Text as defined by lossless-text. Throws ExitError. */
export function words(line: string): string[] {
  return Array.from(line.matchAll(/"(?:[^"\\]|\\.)*"|'[^']*'|[^'"\s]\S*[^'"\s]?/g), ([word]) => {
    if (word.startsWith("'")) return word.slice(1, -1);
    if (!word.startsWith('"')) return word;
    const unquoted = unquotePrefix(word);
    if (unquoted === undefined) throw new ExitError(EXIT.invalidInput, "invalid syntax");
    return decodeLossless(unquoted.value);
  });
}
