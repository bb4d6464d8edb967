import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { describe, test } from "node:test";

interface LockedPackage {
  readonly resolved?: string;
  readonly libc?: readonly string[];
  readonly hasInstallScript?: boolean;
  readonly optionalDependencies?: Readonly<Record<string, string>>;
}

const root = new URL("../../", import.meta.url);
const read = (name: string) => JSON.parse(readFileSync(new URL(name, root), "utf8"));
const packages = read("package-lock.json").packages as Record<string, LockedPackage>;

/** Checks that npm omits until a user's `npm ci` fails. */
describe("the lock file", () => {
  test("holds the packages of all platforms, so that `npm ci` works on each", () => {
    for (const [path, { optionalDependencies = {} }] of Object.entries(packages)) {
      for (const name of Object.keys(optionalDependencies)) {
        const found = packages[`${path}/node_modules/${name}`] ?? packages[`node_modules/${name}`];
        assert.ok(found !== undefined, `${path || "the package"} wants ${name}`);
      }
    }
  });

  test("describes the package as package.json does, so that `npm install` leaves it unchanged", () => {
    const described = read("package.json") as Record<string, unknown>;
    const { hasInstallScript: _, ...locked } = packages[""] as LockedPackage & Record<string, unknown>;
    for (const [name, value] of Object.entries(locked)) assert.deepEqual(value, described[name], name);
    for (const name of ["bin", "dependencies", "devDependencies"]) assert.ok(name in locked, name);
  });

  test("names no registry, and nothing that some versions of npm remove again", () => {
    for (const [path, { resolved, libc }] of Object.entries(packages)) {
      assert.equal(resolved, undefined, path);
      assert.equal(libc, undefined, path);
    }
  });

  test("brings no install script that is neither allowed nor denied", () => {
    const decided = read("package.json").allowScripts as Record<string, boolean>;
    for (const [path, { hasInstallScript }] of Object.entries(packages)) {
      const name = path.slice(path.lastIndexOf("node_modules/") + "node_modules/".length);
      if (hasInstallScript) assert.equal(typeof decided[name], "boolean", name);
    }
  });
});
