// The part of Go's templates, with Helm's functions, that the chart uses: enough to render it where there is no helm. What it does
// not know is an error, so the chart cannot quietly mean something else here; `helm template` gives the same (CONTRIBUTING.md).
import { stringify } from "yaml";

/** All templates of a chart; gives a function that renders one of them by name. */
export function templates(files) {
  const defined = new Map();
  for (const [name, text] of Object.entries(files)) {
    const nodes = parse(text, defined);
    defined.set(name, nodes);
  }
  return (name, data) => render(defined.get(name), data, { $: data }, defined);
}

/** Text and actions; a dash inside of the braces takes the white space beside away. */
function tokens(text) {
  const out = [];
  const pattern = /\{\{(-)?\s*(\/\*[\s\S]*?\*\/|[\s\S]*?)\s*(-)?\}\}/g;
  let at = 0;
  let trim = false;
  const push = (piece) => out.push({ text: piece });
  for (const match of text.matchAll(pattern)) {
    let before = text.slice(at, match.index);
    if (trim) before = before.replace(/^\s+/, "");
    if (match[1]) before = before.replace(/\s+$/, "");
    push(before);
    if (!match[2].startsWith("/*")) out.push({ action: match[2] });
    trim = match[3] !== undefined;
    at = match.index + match[0].length;
  }
  push(trim ? text.slice(at).replace(/^\s+/, "") : text.slice(at));
  return out;
}

function parse(text, defined) {
  const list = tokens(text);
  let i = 0;
  const block = (ends) => {
    const nodes = [];
    for (;;) {
      const token = list[i++];
      if (token === undefined) {
        if (ends) throw new Error("a block has no end");
        return { nodes };
      }
      if (token.text !== undefined) {
        nodes.push(token);
        continue;
      }
      const [word] = token.action.split(/\s/, 1);
      const rest = token.action.slice(word.length).trim();
      if (word === "end" || word === "else") {
        if (!ends) throw new Error(`a stray ${token.action}`);
        return { nodes, end: word, rest };
      }
      if (word === "define") defined.set(JSON.parse(rest), block(true).nodes);
      else if (word === "if" || word === "with" || word === "range") nodes.push(branch(word, rest));
      else nodes.push({ expression: token.action });
    }
  };
  const branch = (kind, condition) => {
    const body = block(true);
    if (body.end === "end") return { kind, condition, body: body.nodes, otherwise: [] };
    if (body.rest.startsWith("if "))
      return { kind, condition, body: body.nodes, otherwise: [branch("if", body.rest.slice(3))] };
    return { kind, condition, body: body.nodes, otherwise: block(true).nodes };
  };
  return block(false).nodes;
}

function render(nodes, dot, scope, defined) {
  if (nodes === undefined) throw new Error("there is no such template");
  let out = "";
  for (const node of nodes) {
    if (node.text !== undefined) out += node.text;
    else if (node.expression !== undefined) out += shown(evaluate(node.expression, dot, scope, defined));
    else {
      const value = evaluate(node.condition, dot, scope, defined);
      if (!isTrue(value)) out += render(node.otherwise, dot, scope, defined);
      else if (node.kind === "if") out += render(node.body, dot, scope, defined);
      else if (node.kind === "with") out += render(node.body, value, scope, defined);
      else for (const each of value) out += render(node.body, each, scope, defined);
    }
  }
  return out;
}

const isTrue = (value) =>
  !(value === undefined || value === null || value === false || value === 0 || value === "" || isEmpty(value));
const isEmpty = (value) => typeof value === "object" && value !== null && Object.keys(value).length === 0;
const shown = (value) => (value === undefined || value === null ? "" : String(value));

/** A pipeline: the value of each part is the last argument of the next. */
function evaluate(text, dot, scope, defined) {
  const words = text.match(/"(?:[^"\\]|\\.)*"|[()|]|[^\s()|]+/g) ?? [];
  let i = 0;
  const operand = () => {
    const word = words[i++];
    if (word === "(") {
      const value = pipeline();
      if (words[i++] !== ")") throw new Error(`a parenthesis is open: ${text}`);
      return value;
    }
    if (word.startsWith('"')) return JSON.parse(word);
    if (/^\d+$/.test(word)) return Number(word);
    if (word === "true" || word === "false") return word === "true";
    if (word === ".") return dot;
    if (word === "$") return scope.$;
    if (word.startsWith("$.")) return path(scope.$, word.slice(2));
    if (word.startsWith(".")) return path(dot, word.slice(1));
    throw new Error(`unknown word ${word} in ${text}`);
  };
  const command = (piped) => {
    const word = words[i];
    const args = [];
    const isCall = functions[word] !== undefined || word === "include" || word === ".Files.Get";
    if (!isCall) return operand();
    i++;
    while (i < words.length && words[i] !== "|" && words[i] !== ")") args.push(operand());
    args.push(...piped);
    if (word === "include") return render(defined.get(args[0]), args[1], { $: args[1] }, defined);
    if (word === ".Files.Get") return scope.$.Files(args[0]);
    return functions[word](...args);
  };
  const pipeline = () => {
    let value = command([]);
    while (words[i] === "|") {
      i++;
      value = command([value]);
    }
    return value;
  };
  const value = pipeline();
  if (i < words.length) throw new Error(`cannot understand ${text}`);
  return value;
}

const path = (value, names) => names.split(".").reduce((at, name) => at?.[name], value);

const functions = {
  default: (usual, value) => (isTrue(value) ? value : usual),
  quote: (value) => JSON.stringify(shown(value)),
  trunc: (length, text) => text.slice(0, length),
  trimSuffix: (suffix, text) => (text.endsWith(suffix) ? text.slice(0, -suffix.length) : text),
  replace: (from, to, text) => text.replaceAll(from, to),
  nindent: (count, text) => `\n${text.replace(/^/gm, " ".repeat(count))}`,
  toYaml: (value) => stringify(value, { lineWidth: 0 }).trimEnd(),
  printf: (format, ...values) => format.replace(/%[sd]/g, () => shown(values.shift())),
  eq: (a, b) => a === b,
  and: (...values) => values.find((value) => !isTrue(value)) ?? values.at(-1),
  or: (...values) => values.find(isTrue) ?? values.at(-1),
  not: (value) => !isTrue(value),
  add: (...values) => values.reduce((sum, value) => sum + value, 0),
  div: (a, b) => Math.floor(a / b),
};
