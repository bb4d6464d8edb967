/**
 * Request targets as in Go's http.ServeMux: a path that is not clean (`//version`, `/v3/../health`) is redirected.
 * Pure.
 */

export interface Target {
  /** Decoded, without the query. */
  readonly path: string;
  /** As sent, in Go's spelling. */
  readonly escapedPath: string;
  /** The part after the question mark; undefined without one. */
  readonly query: string | undefined;
  /** Host of a target that is a complete URL: it overrides the header. */
  readonly host: string | undefined;
}

/** Paths whose subtree belongs to one handler: without the final slash they redirect to themselves. */
const SUBTREES = ["/v3"];

/** Undefined for an invalid URL. */
export function parseTarget(target: string): Target | undefined {
  const url = /^[a-z][a-z0-9+.-]*:\/\/([^/?]*)/i.exec(target);
  const rest = url === null ? target : target.slice(url[0].length);
  const mark = rest.indexOf("?");
  const raw = mark < 0 ? rest : rest.slice(0, mark);
  const query = mark < 0 ? undefined : rest.slice(mark + 1);
  const bytes = unescapePath(raw);
  if (bytes === undefined) return undefined;
  const escapedPath = VALID_PATH.test(raw) ? raw : escapePath(bytes);
  return { path: bytes.toString("utf8"), escapedPath, query, host: url === null ? undefined : url[1] };
}

/** Where a path that is not clean is redirected to; undefined when it is served directly. */
export function redirectTo({ escapedPath, path, query }: Target): string | undefined {
  const clean = cleanPath(escapedPath);
  const isSubtree = SUBTREES.includes(clean);
  if (clean === escapedPath && !isSubtree) return undefined;
  const to = escapePath(Buffer.from(isSubtree ? `${cleanPath(path)}/` : clean));
  return query === undefined || query === "" ? to : `${to}?${query}`;
}

/** Whether a path is below `/name/`, as in ServeMux: by whole segments, each unescaped separately. */
export function isBelow({ escapedPath }: { readonly escapedPath: string }, name: string): boolean {
  const end = escapedPath.indexOf("/", 1);
  return end > 0 && unescapePath(escapedPath.slice(1, end))?.toString("latin1") === name;
}

function cleanPath(path: string): string {
  if (path === "") return "/";
  const segments: string[] = [];
  for (const segment of path.split("/")) {
    if (segment === "..") segments.pop();
    else if (segment !== "" && segment !== ".") segments.push(segment);
  }
  const clean = `/${segments.join("/")}`;
  return path.endsWith("/") && clean !== "/" ? `${clean}/` : clean;
}

/** Characters allowed unescaped in a path. */
const VALID_PATH = /^[A-Za-z0-9\-_.~!$&'()*+,;=:@[\]/%]*$/;
const UNESCAPED = /[A-Za-z0-9\-_.~$&+,/:;=@]/;

function escapePath(bytes: Buffer): string {
  let text = "";
  for (const byte of bytes) {
    const character = String.fromCharCode(byte);
    if (UNESCAPED.test(character)) text += character;
    else text += `%${byte.toString(16).toUpperCase().padStart(2, "0")}`;
  }
  return text;
}

/** Undefined for an invalid percent sign. */
function unescapePath(path: string): Buffer | undefined {
  const bytes = Buffer.from(path, "latin1");
  if (!path.includes("%")) return bytes;
  let used = 0;
  for (let at = 0; at < bytes.length; at++) {
    if (bytes[at] !== 0x25) bytes[used++] = bytes[at]!;
    else {
      const digits = path.slice(at + 1, at + 3);
      if (!/^[0-9a-fA-F]{2}$/.test(digits)) return undefined;
      bytes[used++] = Number.parseInt(digits, 16);
      at += 2;
    }
  }
  return bytes.subarray(0, used);
}
