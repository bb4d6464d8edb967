/**
 * The Huffman code of HPACK (RFC 7541, appendix B), decoding only: our header blocks are a few indexed bytes.
 *
 * The code is canonical, so the lengths below define it. Decoding walks a state machine one nibble at a time; no code
 * is shorter than five bits, so a nibble completes at most one symbol.
 */

/** Length in bits of the code of each byte value, then of the end-of-string symbol. */
// biome-ignore format: sixteen a line, as byte values are counted
const CODE_LENGTHS = [
  13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28,
  28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
  6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6,
  5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
  13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
  7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
  15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5,
  6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
  20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
  24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
  22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23,
  21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
  26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25,
  19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
  20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
  26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
  30,
];
const END_OF_STRING = 256;

/** A transition holds the next state in its low 9 bits, then these flags, then the symbol from bit 12. */
const STATE_MASK = 0x1ff;
const EMITS = 0x200;
const FAILS = 0x400;
const SYMBOL_SHIFT = 12;

const { transitions, accepting } = buildStateMachine();

/** Receives decoded bytes; grown to the longest string seen, bounded by the header block limit. */
let scratch = Buffer.alloc(4096);

/** Decodes `buf[start .. end)` to a string of bytes (latin1), or undefined when it is not a valid Huffman string. */
export function huffmanDecode(buf: Uint8Array, start: number, end: number): string | undefined {
  // The shortest code has five bits, so the output has at most 8/5 of the input's bytes.
  const most = (end - start) * 2;
  if (scratch.length < most) scratch = Buffer.alloc(most);
  const out = scratch;
  let length = 0;
  let state = 0;
  for (let pos = start; pos < end; pos++) {
    const byte = buf[pos]!;
    let step = transitions[(state << 4) | (byte >>> 4)]!;
    if ((step & FAILS) !== 0) return undefined;
    if ((step & EMITS) !== 0) out[length++] = step >>> SYMBOL_SHIFT;
    step = transitions[((step & STATE_MASK) << 4) | (byte & 15)]!;
    if ((step & FAILS) !== 0) return undefined;
    if ((step & EMITS) !== 0) out[length++] = step >>> SYMBOL_SHIFT;
    state = step & STATE_MASK;
  }
  return accepting[state] === 1 ? out.toString("latin1", 0, length) : undefined;
}

function buildStateMachine(): { transitions: Int32Array; accepting: Uint8Array } {
  // The code tree: children[2 * node + bit] is a node, or -1 - symbol for a leaf, or 0 when unset.
  const children: number[] = [0, 0];
  const symbols = CODE_LENGTHS.map((_, symbol) => symbol).sort((a, b) => CODE_LENGTHS[a]! - CODE_LENGTHS[b]! || a - b);
  let code = 0;
  let bits = CODE_LENGTHS[symbols[0]!]!;
  for (const symbol of symbols) {
    code *= 2 ** (CODE_LENGTHS[symbol]! - bits);
    bits = CODE_LENGTHS[symbol]!;
    let node = 0;
    for (let i = bits - 1; i > 0; i--) {
      const at = 2 * node + ((code >>> i) & 1);
      if (children[at] === 0) {
        children[at] = children.length / 2;
        children.push(0, 0);
      }
      node = children[at]!;
    }
    children[2 * node + (code & 1)] = -1 - symbol;
    code++;
  }

  const states = children.length / 2;
  const table = new Int32Array(states * 16);
  for (let state = 0; state < states; state++) {
    for (let nibble = 0; nibble < 16; nibble++) {
      let node = state;
      let flags = 0;
      for (let i = 3; i >= 0; i--) {
        const next = children[2 * node + ((nibble >>> i) & 1)]!;
        if (next === -1 - END_OF_STRING) flags = FAILS;
        if (next < 0) {
          if ((flags & FAILS) === 0) flags = EMITS | ((-1 - next) << SYMBOL_SHIFT);
          node = 0;
        } else node = next;
      }
      table[(state << 4) | nibble] = node | flags;
    }
  }
  // A string may end with up to seven padding bits, all ones: a prefix of the end-of-string code.
  const accepts = new Uint8Array(states);
  for (let node = 0, depth = 0; depth < 8; depth++) {
    accepts[node] = 1;
    node = children[2 * node + 1]!;
  }
  return { transitions: table, accepting: accepts };
}
