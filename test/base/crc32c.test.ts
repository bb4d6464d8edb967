import assert from "node:assert/strict";
import test from "node:test";
import { crc32c, crc32cTable } from "../../src/base/crc32c.ts";
import { repositoryRoot, run } from "../harness/programs.ts";

// RFC 3720 (iSCSI), appendix B.4.
const vectors: [string, Buffer, number][] = [
  ["32 zero bytes", Buffer.alloc(32), 0x8a9136aa],
  ["32 bytes of 0xff", Buffer.alloc(32, 0xff), 0x62a8ab43],
  ["32 rising bytes", Buffer.from(Array.from({ length: 32 }, (_, i) => i)), 0x46dd794e],
  ["32 falling bytes", Buffer.from(Array.from({ length: 32 }, (_, i) => 31 - i)), 0x113fdb5c],
  ["the check string", Buffer.from("123456789"), 0xe3069283],
  ["nothing", Buffer.alloc(0), 0],
];

for (const [name, bytes, expected] of vectors) {
  test(`the checksum of ${name} is ${expected.toString(16)}`, () => {
    assert.equal(crc32c(bytes), expected);
  });
}

test("native and table checksums agree at every length, offset and start value", () => {
  const bytes = Buffer.alloc(1100);
  for (let i = 0; i < bytes.length; i++) bytes[i] = (i * 167 + (i >> 3)) & 255;
  for (let end = 0; end <= bytes.length; end += 7) {
    for (const start of [0, 1, 5, 16]) {
      if (start > end) continue;
      const previous = (end * 2654435761) >>> 0;
      assert.equal(crc32c(bytes, previous, start, end), crc32cTable(bytes, previous, start, end), `${start}..${end}`);
    }
  }
});

test("checksums chain across any split, short or long", () => {
  const bytes = Buffer.alloc(900, "kvorum");
  const whole = crc32c(bytes);
  for (const split of [0, 1, 15, 16, 255, 256, 257, 640, 900]) {
    assert.equal(crc32c(bytes.subarray(split), crc32c(bytes.subarray(0, split))), whole);
  }
});

test("checksums are the same where no native code is installed", async () => {
  const program = `
    import { createRequire, Module } from "node:module";
    const load = Module._load;
    Module._load = (name, ...rest) => {
      if (name === "@node-rs/crc32") throw new Error("no native binding");
      return load(name, ...rest);
    };
    const { crc32c } = await import("./src/base/crc32c.ts");
    console.log(crc32c(Buffer.alloc(1000, "kvorum")));`;
  const args = ["--import", "tsx", "--input-type=module", "-e", program];
  const { stdout, stderr } = await run(process.execPath, args, { cwd: repositoryRoot });
  assert.equal(Number(stdout), crc32c(Buffer.alloc(1000, "kvorum")), stderr);
});
