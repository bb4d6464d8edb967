// Tar archives that depend on nothing but what is in them: names in order, no times, no owners (ustar, with pax for long names).
import { lstatSync, readdirSync, readFileSync, readlinkSync } from "node:fs";
import { join } from "node:path";

const BLOCK_BYTES = 512;

/** Of a directory's contents. */
export function tarOf(dir) {
  const entries = [];
  const walk = (path) => {
    for (const name of readdirSync(join(dir, path)).sort()) {
      const inside = path === "" ? name : `${path}/${name}`;
      const stat = lstatSync(join(dir, inside));
      if (stat.isDirectory()) {
        // Everybody may write there, and only remove what is one's own.
        entries.push(...entry(`${inside}/`, { mode: inside === "tmp" ? 0o1777 : 0o755, type: "5" }));
        walk(inside);
      } else if (stat.isSymbolicLink()) {
        entries.push(...entry(inside, { mode: 0o777, type: "2", link: readlinkSync(join(dir, inside)) }));
      } else if (stat.isFile()) {
        const mode = stat.mode & 0o111 ? 0o755 : 0o644;
        entries.push(...entry(inside, { mode, type: "0", content: readFileSync(join(dir, inside)) }));
      }
    }
  };
  walk("");
  return Buffer.concat([...entries, Buffer.alloc(2 * BLOCK_BYTES)]);
}

/** Of pairs of a name and bytes. */
export function tarOfFiles(files) {
  const entries = files.flatMap(([name, content]) => entry(name, { mode: 0o644, type: "0", content }));
  return Buffer.concat([...entries, Buffer.alloc(2 * BLOCK_BYTES)]);
}

function entry(name, { mode, type, content = Buffer.alloc(0), link = "" }) {
  const records = [...(isLong(name) ? [["path", name]] : []), ...(isLong(link) ? [["linkpath", link]] : [])];
  const pax =
    records.length === 0
      ? []
      : entry("pax", { mode: 0o644, type: "x", content: Buffer.from(records.map(paxRecord).join("")) });
  const header = Buffer.alloc(BLOCK_BYTES);
  const put = (text, at, length) => header.write(text.slice(0, length), at, "latin1");
  const number = (value, at, length) => put(`${value.toString(8).padStart(length - 1, "0")}\0`, at, length);
  header.write(name, 0, 100);
  number(mode, 100, 8);
  number(0, 108, 8);
  number(0, 116, 8);
  number(content.length, 124, 12);
  number(0, 136, 12);
  put(" ".repeat(8), 148, 8);
  put(type, 156, 1);
  header.write(link, 157, 100);
  put("ustar\x0000", 257, 8);
  let sum = 0;
  for (const byte of header) sum += byte;
  put(`${sum.toString(8).padStart(6, "0")}\0 `, 148, 8);
  const padding = Buffer.alloc((BLOCK_BYTES - (content.length % BLOCK_BYTES)) % BLOCK_BYTES);
  return [...pax, header, content, padding];
}

const isLong = (text) => Buffer.byteLength(text) > 100;

/** Its length counts itself. */
function paxRecord([name, value]) {
  const rest = ` ${name}=${value}\n`;
  const bytes = Buffer.byteLength(rest);
  let length = bytes + String(bytes).length;
  length = bytes + String(length).length;
  return `${length}${rest}`;
}
