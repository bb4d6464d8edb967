/**
 * Recipients and identities of age's format: who can read a file, and with which key. X25519 key pairs and passphrases
 * (scrypt). Source: C2SP, age.md.
 */
import {
  createCipheriv,
  createDecipheriv,
  createPrivateKey,
  createPublicKey,
  diffieHellman,
  generateKeyPairSync,
  hkdfSync,
  type KeyObject,
  randomBytes,
  scryptSync,
} from "node:crypto";
import { BackupError } from "../error.ts";
import { decodeBech32 } from "./bech32.ts";

/** One line of a header: its words, and the wrapped key of the file. */
export interface Stanza {
  readonly words: readonly string[];
  readonly body: Buffer;
}

/** Somebody who shall be able to read a file. */
export interface Recipient {
  wrap(fileKey: Buffer): Stanza;
  /** A passphrase: it must be the only recipient. */
  readonly isAlone: boolean;
}

/** A key that reads files. */
export interface Identity {
  /** The file's key, or undefined when the stanza is for somebody else. Throws BackupError. */
  unwrap(stanza: Stanza): Buffer | undefined;
}

const KEY_BYTES = 32;
const FILE_KEY_BYTES = 16;
const TAG_BYTES = 16;
const NO_NONCE = Buffer.alloc(12);
const X25519_INFO = "age-encryption.org/v1/X25519";
const SCRYPT_LABEL = "age-encryption.org/v1/scrypt";
const SCRYPT_SALT_BYTES = 16;
/** 2^18 rounds, as age itself; a file that asks for more than 2^22 is refused: it would take gigabytes. */
const WORK_FACTOR = 18;
const WORK_FACTOR_MAX = 22;
/** What stands before a raw key in the DER of a key. */
const PUBLIC_DER = Buffer.from("302a300506032b656e032100", "hex");
const PRIVATE_DER = Buffer.from("302e020100300506032b656e04220420", "hex");

/** From a text that begins with `age1`. Throws BackupError. */
export function x25519Recipient(text: string): Recipient {
  const raw = decodeBech32("age", text.trim());
  if (raw.length !== KEY_BYTES) throw new BackupError("ERR_BACKUP_KEY", `"${text}" is no recipient with an X25519 key`);
  const publicKey = createPublicKey({ key: Buffer.concat([PUBLIC_DER, raw]), format: "der", type: "spki" });
  return {
    isAlone: false,
    wrap(fileKey) {
      const own = generateKeyPairSync("x25519");
      const share = rawPublic(own.publicKey);
      const shared = diffieHellman({ privateKey: own.privateKey, publicKey });
      const key = derive(shared, Buffer.concat([share, raw]), X25519_INFO);
      return { words: ["X25519", base64(share)], body: seal(key, fileKey) };
    },
  };
}

/** From a text that begins with `AGE-SECRET-KEY-1`. Throws BackupError. */
function x25519Identity(text: string): Identity {
  const raw = decodeBech32("age-secret-key-", text.trim());
  if (raw.length !== KEY_BYTES) throw new BackupError("ERR_BACKUP_KEY", "the secret key is not an X25519 key");
  const privateKey = createPrivateKey({ key: Buffer.concat([PRIVATE_DER, raw]), format: "der", type: "pkcs8" });
  const own = rawPublic(createPublicKey(privateKey));
  return {
    unwrap({ words: [kind, share], body }) {
      if (kind !== "X25519" || share === undefined) return undefined;
      const theirs = Buffer.from(share, "base64");
      if (theirs.length !== KEY_BYTES) return undefined;
      const publicKey = createPublicKey({ key: Buffer.concat([PUBLIC_DER, theirs]), format: "der", type: "spki" });
      const shared = diffieHellman({ privateKey, publicKey });
      return open(derive(shared, Buffer.concat([theirs, own]), X25519_INFO), body);
    },
  };
}

/** The identities of a file as `age-keygen` writes it: one a line, and comments. Throws BackupError. */
export function identitiesOf(text: string, file: string): readonly Identity[] {
  const lines = text.split("\n").map((line) => line.trim());
  const keys = lines.filter((line) => line !== "" && !line.startsWith("#"));
  if (keys.length === 0) throw new BackupError("ERR_BACKUP_KEY", `${file} has no line with AGE-SECRET-KEY-1…`);
  return keys.map(x25519Identity);
}

/** The recipients of a file: one a line, and comments. Throws BackupError. */
export function recipientsOf(text: string): readonly Recipient[] {
  const lines = text.split("\n").map((line) => line.trim());
  return lines.filter((line) => line !== "" && !line.startsWith("#")).map(x25519Recipient);
}

/** Who has the passphrase writes and reads. `workFactor` is for tests: the logarithm of the rounds. */
export function passphraseKey(passphrase: string, workFactor = WORK_FACTOR): Recipient & Identity {
  if (passphrase === "") throw new BackupError("ERR_BACKUP_KEY", "the passphrase is empty");
  /** Deriving a key takes a second, and objects of one chain that were written in one run share it. */
  const known = new Map<string, Buffer>();
  const keyOf = (salt: Buffer, factor: number): Buffer => {
    const name = `${factor} ${salt.toString("hex")}`;
    let key = known.get(name);
    if (key === undefined) {
      if (known.size >= KNOWN_MAX) known.clear();
      known.set(name, (key = stretch(passphrase, salt, factor)));
    }
    return key;
  };
  const salt = randomBytes(SCRYPT_SALT_BYTES);
  return {
    isAlone: true,
    wrap(fileKey) {
      return { words: ["scrypt", base64(salt), `${workFactor}`], body: seal(keyOf(salt, workFactor), fileKey) };
    },
    unwrap({ words: [kind, saltText, factorText], body }) {
      if (kind !== "scrypt" || saltText === undefined || !/^[1-9][0-9]?$/.test(factorText ?? "")) return undefined;
      const factor = Number(factorText);
      const theirs = Buffer.from(saltText, "base64");
      if (theirs.length !== SCRYPT_SALT_BYTES) return undefined;
      if (factor > WORK_FACTOR_MAX) {
        throw new BackupError("ERR_BACKUP_KEY", `the file asks for 2^${factor} rounds of scrypt, which is too much`);
      }
      return open(keyOf(theirs, factor), body);
    },
  };
}

const KNOWN_MAX = 64;

function stretch(passphrase: string, salt: Buffer, factor: number): Buffer {
  const N = 2 ** factor;
  const labelled = Buffer.concat([Buffer.from(SCRYPT_LABEL), salt]);
  return scryptSync(passphrase, labelled, KEY_BYTES, { N, r: 8, p: 1, maxmem: 128 * N * 8 + 1024 * 1024 });
}

/** HKDF with SHA-256. */
export function derive(secret: Buffer, salt: Buffer, info: string): Buffer {
  return Buffer.from(hkdfSync("sha256", secret, salt, info, KEY_BYTES));
}

function seal(key: Buffer, fileKey: Buffer): Buffer {
  const cipher = createCipheriv("chacha20-poly1305", key, NO_NONCE, { authTagLength: TAG_BYTES });
  return Buffer.concat([cipher.update(fileKey), cipher.final(), cipher.getAuthTag()]);
}

/** Undefined when the key does not fit. */
function open(key: Buffer, body: Buffer): Buffer | undefined {
  if (body.length !== FILE_KEY_BYTES + TAG_BYTES) return undefined;
  const decipher = createDecipheriv("chacha20-poly1305", key, NO_NONCE, { authTagLength: TAG_BYTES });
  decipher.setAuthTag(body.subarray(FILE_KEY_BYTES));
  const fileKey = decipher.update(body.subarray(0, FILE_KEY_BYTES));
  try {
    decipher.final();
    return fileKey;
  } catch {
    return undefined;
  }
}

function rawPublic(key: KeyObject): Buffer {
  return key.export({ format: "der", type: "spki" }).subarray(PUBLIC_DER.length);
}

/** Without padding, as age has it. */
export const base64 = (bytes: Buffer): string => bytes.toString("base64").replace(/=+$/, "");
