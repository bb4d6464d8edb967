// Splits a TypeScript file into tokens, without comments. Sufficient for the tools in this folder: a template is one
// token with its whole content, and a slash after a value is a division.

const OPERATORS = ["===", "!==", "<=", ">=", "&&", "||", "??", "+=", "-=", "++", "--", "=>", "?.", "**", "<<", ">>"];

/** @returns {{kind: "word" | "number" | "string" | "template" | "pattern" | "operator", start: number, end: number}[]} */
export function tokensOf(text) {
  const tokens = [];
  let at = 0;
  const push = (kind, end) => {
    tokens.push({ kind, start: at, end });
    at = end;
  };
  while (at < text.length) {
    const rest = text.slice(at, at + 3);
    const c = text[at];
    if (/\s/.test(c)) at++;
    else if (rest.startsWith("//")) at = end(text.indexOf("\n", at), text);
    else if (rest.startsWith("/*")) at = text.indexOf("*/", at) + 2;
    else if (c === '"' || c === "'") push("string", quoted(text, at));
    else if (c === "`") push("template", template(text, at));
    else if (c === "/" && beginsPattern(text, tokens)) push("pattern", pattern(text, at));
    else if (/[A-Za-z_$#]/.test(c)) push("word", at + /^[#\w$]+/.exec(text.slice(at, at + 200))[0].length);
    else if (/\d/.test(c))
      push("number", at + /^(?:0x[\da-f_]+n?|[\d_]+(?:\.\d+)?(?:e\d+)?n?)/i.exec(text.slice(at, at + 60))[0].length);
    else {
      const operator = OPERATORS.find((each) => text.startsWith(each, at)) ?? c;
      push("operator", at + operator.length);
    }
  }
  return tokens;
}

const end = (position, text) => (position < 0 ? text.length : position);

function quoted(text, start) {
  let at = start + 1;
  while (text[at] !== text[start]) at += text[at] === "\\" ? 2 : 1;
  return at + 1;
}

function template(text, start) {
  let at = start + 1;
  let depth = 0;
  for (; text[at] !== "`" || depth > 0; at++) {
    if (text[at] === "\\") at++;
    else if (text.startsWith("${", at)) depth++;
    else if (text[at] === "}" && depth > 0) depth--;
    else if (text[at] === "`" && depth > 0) at = template(text, at) - 1;
  }
  return at + 1;
}

function beginsPattern(text, tokens) {
  const last = tokens.at(-1);
  if (last === undefined) return true;
  const before = text.slice(last.start, last.end);
  return last.kind === "operator" ? !/[)\]}]/.test(before) : before === "return";
}

function pattern(text, start) {
  let at = start + 1;
  for (let inClass = false; text[at] !== "/" || inClass; at++) {
    if (text[at] === "\\") at++;
    else if (text[at] === "[") inClass = true;
    else if (text[at] === "]") inClass = false;
  }
  while (/[a-z]/.test(text[at + 1] ?? "")) at++;
  return at + 1;
}
