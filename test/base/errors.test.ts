import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, test } from "node:test";
import { codeOf, KvorumError, messageOf } from "../../src/base/errors.ts";
import { InvariantError, isFatal } from "../../src/base/fatal.ts";
import { ConfigError } from "../../src/config/errors.ts";
import { LessorError } from "../../src/lease/errors.ts";
import { BackendError } from "../../src/mvcc/backend/backend.ts";
import { EtcdError, errors } from "../../src/server/contract/errors.ts";
import { repositoryRoot } from "../harness/programs.ts";

const src = join(repositoryRoot, "src");
const sources = readdirSync(src, { recursive: true, encoding: "utf8" })
  .filter((name) => name.endsWith(".ts"))
  .map((name) => ({ name, text: readFileSync(join(src, name), "utf8") }));
const page = readFileSync(join(repositoryRoot, "docs", "errors.md"), "utf8");

describe("an error", () => {
  test("is distinguished from Node's by one class, with a code and its cause", () => {
    const cause = Object.assign(new Error("gone"), { code: "ENOENT" });
    const error = new BackendError("ERR_BACKEND_IO", "cannot read the database", { cause });
    assert.ok(error instanceof KvorumError && error instanceof Error);
    assert.deepEqual(
      [codeOf(error), codeOf(error.cause), messageOf(error)],
      ["ERR_BACKEND_IO", "ENOENT", error.message],
    );
    assert.ok(errors.noSpace instanceof KvorumError && new LessorError("ERR_LEASE_EXISTS") instanceof KvorumError);
    assert.equal(new ConfigError("verify", "no").code, "ERR_CONFIG_VERIFY");
    assert.ok(new InvariantError("no") instanceof KvorumError && isFatal(new InvariantError("no")));
    assert.deepEqual([codeOf(null), codeOf("text"), codeOf({ code: 5 })], [undefined, undefined, undefined]);
  });

  test("seen by clients costs no stack, prints as its text alone, and has its own code", () => {
    const error = new EtcdError(5, "no such thing");
    assert.equal(`${error}`, "no such thing");
    assert.doesNotMatch(error.stack ?? "", /\n\s+at /);
    assert.match(new Error("others").stack!, /\n\s+at /);
    const codes = Object.values(errors).map(({ code }) => code);
    assert.equal(new Set(codes).size, codes.length);
  });

  test("of every class has one base", () => {
    for (const { name, text } of sources) {
      // The classes of another library's surface are as that has them.
      if (name === join("base", "errors.ts") || name === join("etcd3", "errors.ts")) continue;
      assert.ok(!/\bextends (?:Error|TypeError|RangeError)\b/.test(text), `${name}: extend KvorumError`);
    }
  });
});

test("every code is documented once, and every documented code exists", () => {
  const codes = new Set<string>(Object.values(errors).map(({ code }) => code));
  for (const kind of ["FLAGS", "VERIFY", "START"]) codes.add(`ERR_CONFIG_${kind}`);
  codes.add("ERR_ETCD");
  for (const { text } of sources) {
    for (const [, code] of text.matchAll(/readonly code(?:: string)? = "([\w-]+)";/g)) codes.add(code!);
    for (const [, union] of text.matchAll(/type \w*ErrorCode =(.*?);\n/gs)) {
      for (const [, code] of union!.matchAll(/"([\w-]+)"/g)) codes.add(code!);
    }
  }
  assert.ok(codes.size > 140, `${codes.size} codes found`);
  const documented = [...page.matchAll(/^\| `([\w-]+)` \|/gm)].map(([, code]) => code!);
  assert.deepEqual(documented.toSorted(), [...codes].toSorted());
});

test("every documented error that clients see has its status and its text", () => {
  for (const { code, message } of Object.values(errors)) {
    assert.ok(page.includes(`| ${message} |`) && page.includes(`| \`${code}\` |`), `${code}: ${message}`);
  }
});

test("every error class is documented", () => {
  for (const { text } of sources) {
    for (const [, name] of text.matchAll(/^export class (\w+) extends (?:KvorumError|InvariantError|FileError)\b/gm)) {
      assert.ok(name === "EtcdError" || page.includes(`\`${name}\``), `docs/errors.md does not know ${name}`);
    }
  }
});
