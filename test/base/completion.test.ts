import assert from "node:assert/strict";
import { test } from "node:test";
import { type Command, type Printing, understand } from "../../src/base/command-tree.ts";
import { completionCommand } from "../../src/base/completion.ts";

const PROGRAM: Command<Printing> = {
  name: "prog",
  short: "A program",
  sharedFlags: [{ name: "debug", kind: "bool", value: false, usage: "more" }],
  commands: [
    {
      name: "lease",
      short: "Leases",
      commands: [
        { name: "list", short: "Lists", flags: [{ name: "all", kind: "bool", value: false, usage: "" }], run() {} },
      ],
    },
    completionCommand("prog", (message) => new RangeError(message)),
  ],
};

function complete(...words: string[]): string {
  let printed = "";
  const invocation = understand(PROGRAM, ["completion", ...words]);
  invocation.command.run?.({ io: { out: (text) => void (printed += text) } }, invocation);
  return printed;
}

test("a script offers the commands and flags that may follow", () => {
  for (const shell of ["bash", "zsh", "fish", "powershell"]) {
    const script = complete(shell);
    for (const words of ["lease completion --debug --help", "list --debug --help", "--debug --all --help"]) {
      assert.ok(script.includes(words), `${shell}: ${words} in ${script}`);
    }
    assert.match(script, /prog/);
  }
});

test("a shell that there is not is refused, also one that is called like a property of every object", () => {
  const refused = new RangeError("completion takes one shell: bash, zsh, fish or powershell");
  for (const words of [[], ["tcsh"], ["bash", "zsh"], ["constructor"], ["toString"]]) {
    assert.throws(() => complete(...words), refused);
  }
});
