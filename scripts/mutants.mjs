// The mutations that scripts/mutate.mjs makes in a TypeScript file. It uses tokens, not a tree: the sources are
// formatted by one tool, so a binary operator has spaces around it and a type argument has none.
import { tokensOf } from "./tokens.mjs";

const SWAPS = {
  "===": "!==",
  "!==": "===",
  "<": "<=",
  "<=": "<",
  ">": ">=",
  ">=": ">",
  "&&": "||",
  "||": "&&",
  "??": "&&",
  "+": "-",
  "-": "+",
  "*": "/",
  "/": "*",
  "+=": "-=",
  "-=": "+=",
  "++": "--",
};

/** @returns {{start: number, end: number, replacement: string, line: number, what: string}[]} */
export function mutantsOf(text) {
  const tokens = tokensOf(text);
  const types = typeBlocks(text);
  const lineStarts = [0];
  for (let i = 0; i < text.length; i++) if (text[i] === "\n") lineStarts.push(i + 1);
  const mutants = [];
  const add = (start, end, replacement, what) => {
    if (types.some(([from, to]) => start >= from && start < to)) return;
    const line = lineStarts.findLastIndex((at) => at <= start) + 1;
    mutants.push({ start, end, replacement, line, what });
  };

  for (const [i, { kind, start, end }] of tokens.entries()) {
    const token = text.slice(start, end);
    const before = tokens[i - 1];
    const spaced = /\s/.test(text[start - 1] ?? "") && /\s/.test(text[end] ?? "");
    if (kind === "operator" && SWAPS[token] !== undefined && (spaced || token === "++")) {
      // A line that begins with | or & is a type; a string next to + cannot be subtracted.
      const strings = [before?.kind, tokens[i + 1]?.kind];
      if (token === "+" && strings.some((each) => each === "string" || each === "template")) continue;
      add(start, end, SWAPS[token], `${token} becomes ${SWAPS[token]}`);
    } else if (kind === "word" && (token === "true" || token === "false")) {
      add(start, end, token === "true" ? "false" : "true", `${token} is turned round`);
    } else if (kind === "number" && !token.endsWith("n")) {
      add(start, end, `(${token} + 1)`, `${token} becomes one more`);
    } else if (kind === "string" && end - start > 2) {
      add(start, end, `${token.slice(0, -1)}~${token[0]}`, `the string ${token} is another`);
    } else if (kind === "template" && end - start > 2 && /[a-z]{3}/i.test(token)) {
      add(start, end, `${token.slice(0, -1)}~\``, "the text is another");
    } else if (kind === "word" && (token === "if" || token === "while") && text[end + 1] === "(") {
      const close = closing(text, tokens, i + 1);
      if (close !== undefined) add(end + 2, close, `!(${text.slice(end + 2, close)})`, `${token} is turned round`);
    }
  }
  for (const match of text.matchAll(
    /^ +((?:await |void )?(?:this|[a-z][\w]*|#\w+)[\w.#?]*(?:\(|\+\+|--| [-+]?= ).*;)$/gm,
  )) {
    if (/^(const|let|return|throw|import|export|readonly|declare|static|yield|break|continue)\b/.test(match[1]))
      continue;
    const start = match.index + match[0].length - match[1].length;
    // A class member with a value is not a statement.
    if (/^\w+ = /.test(match[1]) && /^ {2}\S/.test(match[0])) continue;
    add(start, start + match[1].length, ";", "the statement is left out");
  }
  return mutants;
}

/** Ranges of imports, re-exports, interfaces and type aliases: they are not executed. */
function typeBlocks(text) {
  const blocks = [];
  for (const match of text.matchAll(/^(?:import|export) (?:type )?(?:[\w*{][^;]*? from )?"[^"]*";$/gm)) {
    blocks.push([match.index, match.index + match[0].length]);
  }
  for (const match of text.matchAll(
    /^(?:export )?(?:declare )?interface [\s\S]*?\n\}$|^(?:export )?type [\s\S]*?;$/gm,
  )) {
    blocks.push([match.index, match.index + match[0].length]);
  }
  return blocks;
}

/** The closing bracket for token `i`. */
function closing(text, tokens, i) {
  let depth = 0;
  for (let at = i; at < tokens.length; at++) {
    const token = text.slice(tokens[at].start, tokens[at].end);
    if (token === "(") depth++;
    else if (token === ")" && --depth === 0) return tokens[at].start;
  }
  return undefined;
}
