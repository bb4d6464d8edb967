import assert from "node:assert/strict";
import { createHmac, generateKeyPairSync, type KeyObject, sign } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, describe, test } from "node:test";
import type { TokenProvider } from "../../src/auth/token-provider.ts";
import { createTokenProvider } from "../../src/auth/tokens.ts";
import { systemDisk } from "../../src/base/disk.ts";
import { systemRandom } from "../../src/base/random.ts";
import { MemoryLogger, tempDir } from "../harness/in-process.ts";
import { VirtualClock } from "../harness/virtual-clock.ts";

const dir = tempDir();
after(() => dir.remove());
const clock = new VirtualClock();

function provider(spec: string, logger = new MemoryLogger()): TokenProvider {
  const options = { spec, simpleTtlMs: 10_000, clock, random: systemRandom, disk: systemDisk, logger };
  const made = createTokenProvider(options);
  made.enable();
  return made;
}

const tokenOf = (made: ReturnType<TokenProvider["assign"]>): string => (made as { token: string }).token;

function file(name: string, content: string | Buffer): string {
  const path = join(dir.path, name);
  writeFileSync(path, content);
  return path;
}

function pemPair(name: string, { publicKey, privateKey }: { publicKey: KeyObject; privateKey: KeyObject }) {
  return {
    pub: file(`${name}.pub`, publicKey.export({ type: "spki", format: "pem" })),
    priv: file(`${name}.key`, privateKey.export({ type: "pkcs8", format: "pem" })),
  };
}

const rsa = pemPair("rsa", generateKeyPairSync("rsa", { modulusLength: 2048 }));
const otherRsa = pemPair("rsa2", generateKeyPairSync("rsa", { modulusLength: 2048 }));
const p256 = pemPair("p256", generateKeyPairSync("ec", { namedCurve: "P-256" }));
const p384 = pemPair("p384", generateKeyPairSync("ec", { namedCurve: "P-384" }));
const ed = pemPair("ed", generateKeyPairSync("ed25519"));
const secret = file("secret", "not so secret");

describe("a simple token", () => {
  test("is sixteen letters and the index before its entry, and valid until it was unused for its TTL", () => {
    const tokens = provider("simple");
    const prefix = tokens.newPrefix();
    assert.match(prefix, /^[a-zA-Z]{16}$/);
    const token = tokenOf(tokens.assign("anna", 3, prefix, 77));
    assert.equal(token, `${prefix}.76`);
    assert.equal(tokens.indexOf(token), 77);
    clock.advance(9_000);
    const info = tokens.info(token, 4);
    assert.deepEqual([info?.username, info?.revision], ["anna", 4]);
    clock.advance(9_000);
    assert.equal(tokens.info(token, 4)?.username, "anna");
    clock.advance(11_500);
    assert.equal(tokens.info(token, 4), undefined);
    tokens.disable();
  });

  test("is dropped when authentication is disabled", () => {
    const tokens = provider("simple");
    const token = tokenOf(tokens.assign("anna", 3, "p", 1));
    tokens.disable();
    tokens.enable();
    assert.equal(tokens.info(token, 3), undefined);
    tokens.disable();
    assert.equal(clock.timerCount, 0);
  });

  test("given out twice stops the member", () => {
    const tokens = provider("simple");
    tokens.assign("anna", 3, "p", 1);
    assert.throws(() => tokens.assign("bob", 3, "p", 1), /given out before/);
    tokens.disable();
  });

  test("of another form has no index", () => {
    const tokens = provider("simple");
    for (const text of ["", "abc", "a.b.1", "a.x", "a.-1", "a.99999999999999999"])
      assert.equal(tokens.indexOf(text), 0);
    tokens.disable();
  });
});

describe("a signed token", () => {
  const specs: Record<string, string> = {
    RS256: `jwt,pub-key=${rsa.pub},priv-key=${rsa.priv},sign-method=RS256,ttl=10m`,
    PS512: `jwt,priv-key=${rsa.priv},sign-method=PS512`,
    ES256: `jwt,pub-key=${p256.pub},priv-key=${p256.priv},sign-method=ES256`,
    ES384: `jwt,priv-key=${p384.priv},sign-method=ES384`,
    EdDSA: `jwt,pub-key=${ed.pub},priv-key=${ed.priv},sign-method=EdDSA`,
    HS256: `jwt,priv-key=${secret},sign-method=HS256`,
  };

  for (const [method, spec] of Object.entries(specs)) {
    test(`by ${method} names the user, the revision and the expiry`, () => {
      const tokens = provider(spec);
      const token = tokenOf(tokens.assign("anna", 3, "", 9));
      const [head, body] = token.split(".").map((part) => Buffer.from(part, "base64url").toString());
      assert.equal(head, `{"alg":"${method}","typ":"JWT"}`);
      const minutes = method === "RS256" ? 10 : 5;
      const exp = Math.floor(clock.wallMs() / 1000) + minutes * 60;
      assert.equal(body, `{"exp":${exp},"revision":3,"username":"anna"}`);
      for (let i = 0; i < 2; i++) {
        const info = tokens.info(token, 99);
        assert.deepEqual([info?.username, info?.revision], ["anna", 3]);
      }
      const forged = `${token.split(".")[0]}.${Buffer.from('{"revision":3,"username":"root"}').toString("base64url")}.${token.split(".")[2]}`;
      assert.equal(tokens.info(forged, 3), undefined);
      clock.advance(minutes * 60_000 + 1_000);
      assert.equal(tokens.info(token, 3), undefined);
    });
  }

  test("is accepted from anyone who has the key, and only with the configured method", () => {
    const tokens = provider(specs["HS256"]!);
    const make = (header: object, claims: object, hash = "sha256"): string => {
      const text = [header, claims].map((part) => Buffer.from(JSON.stringify(part)).toString("base64url")).join(".");
      return `${text}.${createHmac(hash, "not so secret").update(text).digest("base64url")}`;
    };
    const claims = { username: "anna", revision: 3 };
    assert.equal(tokens.info(make({ alg: "HS256" }, claims), 3)?.username, "anna");
    assert.equal(tokens.info(make({ alg: "HS512" }, claims, "sha512"), 3), undefined);
    assert.equal(tokens.info(make({ alg: "none" }, claims), 3), undefined);
    assert.equal(tokens.info(make({ alg: "HS256" }, { revision: 3 }), 3), undefined);
    assert.equal(tokens.info(make({ alg: "HS256" }, { username: "anna" }), 3), undefined);
    assert.equal(tokens.info(make({ alg: "HS256" }, { ...claims, exp: "soon" }), 3), undefined);
    const inAMinute = clock.wallMs() / 1000 + 60;
    const early = make({ alg: "HS256" }, { ...claims, nbf: inAMinute });
    assert.equal(tokens.info(early, 3), undefined);
    clock.advance(61_000);
    assert.equal(tokens.info(early, 3)?.username, "anna");
    for (const broken of ["", "a", "a.b", "a.b.c", "!.!.!", `${early}.x`])
      assert.equal(tokens.info(broken, 3), undefined);
  });

  test("is only verified, not created, with a public key alone", () => {
    const token = tokenOf(provider(specs["RS256"]!).assign("anna", 3, "", 9));
    const checker = provider(`jwt,pub-key=${rsa.pub},sign-method=RS256`);
    assert.equal(checker.info(token, 3)?.username, "anna");
    assert.equal(checker.assign("anna", 3, "", 9), "verifyOnlyKey");
  });

  test("is not created with a curve that does not match the method", () => {
    assert.equal(provider(`jwt,priv-key=${p384.priv},sign-method=ES256`).assign("anna", 3, "", 9), "invalidSigningKey");
  });
});

describe("--auth-token is refused", () => {
  const cases: [spec: string, error: string][] = [
    ["other", "auth: invalid auth options"],
    ["jwt", "auth: invalid auth options"],
    ["jwt,sign-method", "auth: invalid auth options"],
    ["jwt,sign-method=RS256,sign-method=RS256", "auth: invalid auth options"],
    ["jwt,sign-method=XX256", "auth: invalid auth options"],
    ["jwt,sign-method=none", "unsupported signing method: *jwt.signingMethodNone"],
    [`jwt,sign-method=RS256,priv-key=${dir.path}/absent`, "auth: invalid auth options"],
    [`jwt,sign-method=RS256,priv-key=${rsa.priv},ttl=soon`, "auth: invalid auth options"],
    ["jwt,sign-method=RS256", "auth: missing key data"],
    [`jwt,sign-method=HS256,pub-key=${secret}`, "auth: missing key data"],
    [`jwt,sign-method=RS256,priv-key=${rsa.priv},pub-key=${otherRsa.pub}`, "auth: public and private keys don't match"],
    [`jwt,sign-method=RS256,priv-key=${p256.priv}`, "key is not a valid RSA private key"],
    [`jwt,sign-method=ES256,pub-key=${rsa.pub}`, "key is not a valid ECDSA public key"],
    [`jwt,sign-method=EdDSA,pub-key=${ed.priv}`, "key is not a valid Ed25519 public key"],
    [`jwt,sign-method=RS256,priv-key=${secret}`, "invalid key: Key must be a PEM encoded PKCS1 or PKCS8 key"],
  ];
  for (const [spec, message] of cases) {
    test(`as ${spec.replaceAll(dir.path, "")}`, () => {
      assert.throws(() => provider(spec), { name: "AuthOptionsError", message });
    });
  }

  test("not for unknown options, which are logged", () => {
    const logger = new MemoryLogger();
    provider(`jwt,sign-method=HS256,priv-key=${secret},color=red`, logger);
    assert.equal(logger.has("unknown JWT options"), true);
  });
});

describe("the keys of signed tokens", () => {
  const spec = (pub: string, more = ""): string => `jwt,pub-key=${pub},sign-method=EdDSA${more}`;
  const pair = (name: string) => pemPair(name, generateKeyPairSync("ed25519"));
  const signer = (name: string): TokenProvider => {
    const keys = pair(name);
    return provider(`jwt,pub-key=${keys.pub},priv-key=${keys.priv},sign-method=EdDSA,ttl=1h`);
  };
  const read = (name: string): Buffer => readFileSync(join(dir.path, name));

  test("may be several, and a member without a private one verifies tokens, but makes none", () => {
    const [one, two, other] = [signer("one"), signer("two"), signer("other")];
    const tokens = provider(spec(file("both.pub", Buffer.concat([read("one.pub"), read("two.pub")]))));
    for (const made of [one, two])
      assert.equal(tokens.info(tokenOf(made.assign("anna", 3, "", 0)), 3)?.username, "anna");
    assert.equal(tokens.info(tokenOf(other.assign("anna", 3, "", 0)), 3), undefined);
    assert.equal(tokens.assign("anna", 3, "", 0), "verifyOnlyKey");
  });

  test("are read again: new ones count, and what one that is gone has signed does not, even if it was verified", () => {
    const [old, young] = [signer("old"), signer("young")];
    const pub = file("changing.pub", read("old.pub"));
    const logger = new MemoryLogger();
    const tokens = provider(spec(pub), logger);
    const [first, second] = [tokenOf(old.assign("anna", 3, "", 0)), tokenOf(young.assign("anna", 3, "", 0))];
    assert.ok(tokens.info(first, 3));
    assert.equal(tokens.info(second, 3), undefined);
    file("changing.pub", Buffer.concat([read("old.pub"), read("young.pub")]));
    clock.advance(10_001);
    assert.ok(tokens.info(first, 3));
    assert.ok(tokens.info(second, 3));
    file("changing.pub", "no key");
    clock.advance(10_001);
    assert.ok(tokens.info(first, 3), "files that cannot be used change nothing");
    assert.ok(logger.has("the keys of JWT tokens cannot be read again; those read before stay in use"));
    file("changing.pub", read("young.pub"));
    clock.advance(10_001);
    assert.equal(tokens.info(first, 3), undefined);
    assert.ok(tokens.info(second, 3));
  });

  test("of more than one kind of file, or too many, are refused at the start", () => {
    const many = Buffer.concat(Array.from({ length: 17 }, (_, i) => readFileSync(pair(`many${i}`).pub)));
    assert.throws(() => provider(spec(file("many.pub", many))), /more than 16 public keys/);
    const mixed = Buffer.concat([readFileSync(ed.pub), readFileSync(rsa.pub)]);
    assert.throws(() => provider(spec(file("mixed.pub", mixed))), /not a valid Ed25519 public key/);
    assert.throws(() => provider(spec(ed.pub, ",revision=never")), /give required or optional/);
  });
});

describe("a signed token without a revision", () => {
  const keys = pemPair("idp", generateKeyPairSync("ed25519"));
  const made = (claims: object): string => {
    const part = (value: object): string => Buffer.from(JSON.stringify(value)).toString("base64url");
    const text = `${part({ alg: "EdDSA", typ: "JWT" })}.${part(claims)}`;
    return `${text}.${sign(null, Buffer.from(text), readFileSync(keys.priv)).toString("base64url")}`;
  };
  const exp = Math.floor(clock.wallMs() / 1000) + 100_000;

  test("is refused, as in etcd", () => {
    const tokens = provider(`jwt,pub-key=${keys.pub},sign-method=EdDSA`);
    assert.equal(tokens.info(made({ username: "anna", exp }), 3), undefined);
  });

  test("outlives changes of users where that is allowed, up to its end, which it must have", () => {
    const tokens = provider(`jwt,pub-key=${keys.pub},sign-method=EdDSA,revision=optional`);
    const token = made({ username: "anna", exp });
    assert.equal(tokens.info(token, 3)?.revision, 3);
    assert.equal(tokens.info(token, 8)?.revision, 8, "it has the rights of the present");
    assert.equal(tokens.info(made({ username: "anna" }), 3), undefined, "without an end it would be good for ever");
    assert.equal(tokens.info(made({ username: "anna", exp, revision: 3 }), 8)?.revision, 3);
    clock.advance(100_001_000);
    assert.equal(tokens.info(token, 8), undefined);
  });
});
