import assert from "node:assert/strict";
import { test } from "node:test";
import { parse } from "./command-line.ts";

const KINDS = { seeds: "number", plan: "text", trace: "flag" } as const;

test("options are read with and without an equals sign, and absent ones have their default", () => {
  const values = parse(KINDS, ["--seeds", "7", "--plan=a.json", "--trace"]);
  assert.equal(values.number("seeds", 1), 7);
  assert.equal(values.text("plan"), "a.json");
  assert.equal(values.has("trace"), true);
  assert.equal(parse(KINDS, []).number("seeds", 1), 1);
  assert.equal(parse(KINDS, []).has("trace"), false);
});

test("what cannot be used is refused by name", () => {
  for (const [args, message] of [
    [["--first", "3"], /there is no option --first; options are --seeds, --plan, --trace/],
    [["--seeds"], /--seeds needs a value/],
    [["--seeds", "many"], /--seeds needs a whole number, not many/],
    [["--seeds=1.5"], /--seeds needs a whole number, not 1.5/],
    [["--plan", "--trace"], /--plan needs a value/],
    [["--trace=yes"], /--trace takes no value/],
    [["12"], /12 is not an option; options are/],
  ] as const) {
    assert.throws(() => parse(KINDS, args), message, args.join(" "));
  }
});
