import assert from "node:assert/strict";
import { test } from "node:test";
import { KeyedHash } from "../../../src/mvcc/index/keyed-hash.ts";
import { SeededRandom } from "../model.ts";

/** The same function as its authors write it: words first, then rounds one by one. */
function plain(key: bigint, bytes: Uint8Array): number {
  const add = (a: number, b: number): number => (a + b) >>> 0;
  const rotate = (a: number, by: number): number => ((a << by) | (a >>> (32 - by))) >>> 0;
  const k0 = Number(BigInt.asUintN(32, key));
  const k1 = Number(BigInt.asUintN(32, key >> 32n));
  let [v0, v1, v2, v3] = [k0, k1, (0x6c796765 ^ k0) >>> 0, (0x74656462 ^ k1) >>> 0];
  const round = (): void => {
    v0 = add(v0, v1);
    v1 = (rotate(v1, 5) ^ v0) >>> 0;
    v0 = rotate(v0, 16);
    v2 = add(v2, v3);
    v3 = (rotate(v3, 8) ^ v2) >>> 0;
    v0 = add(v0, v3);
    v3 = (rotate(v3, 7) ^ v0) >>> 0;
    v2 = add(v2, v1);
    v1 = (rotate(v1, 13) ^ v2) >>> 0;
    v2 = rotate(v2, 16);
  };
  const padded = Buffer.alloc((bytes.length >> 2) * 4 + 4);
  padded.set(bytes);
  padded[padded.length - 1] = bytes.length & 255;
  for (let at = 0; at < padded.length; at += 4) {
    const word = padded.readUInt32LE(at);
    v3 = (v3 ^ word) >>> 0;
    round();
    v0 = (v0 ^ word) >>> 0;
  }
  v2 = (v2 ^ 0xff) >>> 0;
  for (let i = 0; i < 3; i++) round();
  return (v1 ^ v3) | 0;
}

test("it is HalfSipHash-1-3, of any piece of memory", () => {
  const random = new SeededRandom(1);
  for (let length = 0; length < 300; length++) {
    const memory = Buffer.from(Array.from({ length: length + 20 }, () => random.below(256)));
    const key = random.uint64();
    const start = random.below(20);
    assert.equal(
      new KeyedHash(key).of(memory, start, start + length),
      plain(key, memory.subarray(start, start + length)),
    );
  }
});

test("keys that differ in one bit have hashes that differ in half of theirs", () => {
  const random = new SeededRandom(2);
  const hash = new KeyedHash(random.uint64());
  const differing = new Array<number>(32).fill(0);
  const rounds = 4000;
  for (let i = 0; i < rounds; i++) {
    const key = Buffer.from(`/registry/pods/default/pod-${random.below(100_000)}`);
    const before = hash.of(key, 0, key.length);
    key[random.below(key.length)]! ^= 1 << random.below(8);
    const changed = before ^ hash.of(key, 0, key.length);
    for (let bit = 0; bit < 32; bit++) differing[bit]! += (changed >>> bit) & 1;
  }
  for (const [bit, count] of differing.entries()) {
    assert.ok(Math.abs(count / rounds - 0.5) < 0.05, `bit ${bit} changes in ${count} of ${rounds}`);
  }
});
