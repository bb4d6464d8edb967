import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, test } from "node:test";
import { decrypted, encrypted } from "../../src/backup/age/file.ts";
import { identitiesOf, passphraseKey, x25519Recipient } from "../../src/backup/age/keys.ts";
import { tempDir } from "../harness/in-process.ts";
import { requireProgram } from "../harness/programs.ts";

const RECIPIENT = "age15c8qud2jvvthz8gm2nlpeevuu99jm9w9ecdaftxgrckv4mny353qr6kztu";
const IDENTITY = "AGE-SECRET-KEY-1M536W0FCC95GD45JEUDEE6949XEAMY03XKYNHVJVHSTK2PVNU38QA5Z5WP";
const ours = identitiesOf(`# a comment\n${IDENTITY}\n`, "keys.txt");

async function* inPieces(bytes: Buffer, pieceBytes: number): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += pieceBytes) yield bytes.subarray(at, at + pieceBytes);
}

async function all(source: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const parts: Uint8Array[] = [];
  for await (const part of source) parts.push(part);
  return Buffer.concat(parts);
}

const patterned = (length: number): Buffer => Buffer.from(Uint8Array.from({ length }, (_, i) => (i * 7) & 255));

describe("a file in age's format", () => {
  test("comes back whole at every length around its chunks, for a key and for a passphrase", async () => {
    const passphrase = passphraseKey("correct horse", 4);
    for (const length of [0, 1, 65_535, 65_536, 65_537, 131_072, 200_000]) {
      const plain = patterned(length);
      const sealed = await all(encrypted(inPieces(plain, 10_000), [x25519Recipient(RECIPIENT)]));
      assert.ok((await all(decrypted(inPieces(sealed, 999), ours))).equals(plain), `${length}`);
      const secret = await all(encrypted(inPieces(plain, 70_000), [passphrase]));
      const reader = passphraseKey("correct horse", 4);
      assert.ok((await all(decrypted(inPieces(secret, 50_000), [reader]))).equals(plain), `${length}`);
    }
  });

  test("is refused when it is cut off at a chunk, changed, or for somebody else", async () => {
    const sealed = await all(encrypted(inPieces(patterned(150_000), 8000), [x25519Recipient(RECIPIENT)]));
    const wrong = (bytes: Buffer) => all(decrypted(inPieces(bytes, 4096), ours));
    const head = sealed.length - 150_000 - 3 * 16;
    for (const length of [0, 10, head, head + 65_552, sealed.length - 1]) {
      await assert.rejects(wrong(sealed.subarray(0, length)), { code: "ERR_BACKUP_DAMAGED" }, `${length}`);
    }
    for (const at of [head - 40, head + 5, head + 70_000, sealed.length - 1]) {
      const changed = Buffer.from(sealed);
      changed[at]! ^= 1;
      await assert.rejects(wrong(changed), { code: /ERR_BACKUP_(DAMAGED|KEY)/ }, `${at}`);
    }
    await assert.rejects(all(decrypted(inPieces(sealed, 4096), [passphraseKey("no", 4)])), { code: "ERR_BACKUP_KEY" });
  });

  test("that age itself has written is read", async () => {
    const made = Buffer.from(AGE_FILE, "base64");
    assert.equal((await all(decrypted(inPieces(made, 50), ours))).toString(), "read by others");
  });

  test("is read by age, and the other way round", { skip: requireProgram("age") }, async () => {
    const dir = tempDir();
    try {
      const keys = join(dir.path, "keys.txt");
      writeFileSync(keys, `${IDENTITY}\n`);
      const plain = patterned(100_000);
      const input = await all(encrypted(inPieces(plain, 9000), [x25519Recipient(RECIPIENT)]));
      const read = spawnSync("age", ["-d", "-i", keys], { input });
      assert.ok(read.stdout.equals(plain), read.stderr.toString());
      const written = spawnSync("age", ["-r", RECIPIENT], { input: plain });
      assert.ok((await all(decrypted(inPieces(written.stdout, 9000), ours))).equals(plain));
    } finally {
      dir.remove();
    }
  });
});

test("a key with a wrong character is refused, and a secret one is not shown", () => {
  assert.throws(() => x25519Recipient(RECIPIENT.replace("q", "p")), /its checksum is wrong/);
  assert.throws(() => x25519Recipient("age1"), /is no age1…/);
  const broken = IDENTITY.replace("M536", "M537");
  assert.throws(
    () => identitiesOf(broken, "keys.txt"),
    (error: Error) => /checksum/.test(error.message) && !error.message.includes("FCC95"),
  );
  assert.throws(() => identitiesOf("# nothing", "keys.txt"), /keys.txt has no line/);
});

/** `printf 'read by others' | age -r …`, age 1.1.1. */
const AGE_FILE =
  "YWdlLWVuY3J5cHRpb24ub3JnL3YxCi0+IFgyNTUxOSBiTlBuMmtnY1MvUzVsckFabHRQVGl4NFY1ajRPMkFBZFlPckV4ZmY2N2pRCjZ3RURwUUM3cVFTd2NQRDVtcXpKL3ZEZjZmUUJBdWwrN01ZcUNqcm9WNEUKLS0tIGN3c254RW80MnBnb3g0VjZoVTBQR29mbXdGT3h3c0h6M0s3VGkrdzRmcW8KDpzKs2kFuDJQc8C28niHOfFM43ZhLYOL07IwvZPab9dPhEtCZ1kYyQ5LpFRKQw==";
