/** The command `completion`: shell scripts that complete a program's commands and flags. */
import type { Command, Printing } from "./command-tree.ts";

const SHELLS: ReadonlyMap<string, (candidates: Candidates, program: string) => string> = new Map(
  Object.entries({ bash, zsh, fish, powershell }),
);

/** Possible next words after each sequence of commands: commands and flags. */
type Candidates = ReadonlyMap<string, readonly string[]>;

/** The command `completion` of the program of that name; `badArgs` makes the error for a shell that it does not know. */
export function completionCommand<Context extends Printing>(
  program: string,
  badArgs: (message: string) => Error,
): Command<Context> {
  return {
    name: "completion",
    usage: "[bash|zsh|fish|powershell]",
    short: "Generate completion script",
    long: help(program),
    run({ io }, { path, args }) {
      const script = args.length === 1 ? SHELLS.get(args[0]!)?.(candidatesOf(path[0]!), program) : undefined;
      if (script === undefined) throw badArgs("completion takes one shell: bash, zsh, fish or powershell");
      io.out(script);
    },
  };
}

const help = (program: string): string => `Prints a completion script for a shell. To have it in each session:

  bash        ${program} completion bash > /etc/bash_completion.d/${program}
  zsh         ${program} completion zsh > "\${fpath[1]}/_${program}"
  fish        ${program} completion fish > ~/.config/fish/completions/${program}.fish
  powershell  ${program} completion powershell | Out-String | Invoke-Expression`;

function candidatesOf<Context>(program: Command<Context>): Candidates {
  const candidates = new Map<string, readonly string[]>();
  const shared = (program.sharedFlags ?? []).map(({ name }) => `--${name}`);
  const visit = (command: Command<Context>, path: readonly string[], above: readonly string[]) => {
    const commands = command.commands ?? [];
    const own = [...(command.flags ?? []), ...(path.length > 0 ? (command.sharedFlags ?? []) : [])];
    const flags = [...above, ...own.map(({ name }) => `--${name}`)];
    candidates.set(path.join(" "), [...commands.map(({ name }) => name), ...flags, "--help"]);
    const inherited = [
      ...above,
      ...(path.length > 0 ? (command.sharedFlags ?? []).map(({ name }) => `--${name}`) : []),
    ];
    for (const child of commands) visit(child, [...path, child.name], inherited);
  };
  visit(program, [], shared);
  return candidates;
}

/** The command words of the command line, joined; the same in every script. */
function cases(candidates: Candidates, line: (path: string, words: string) => string): string {
  return [...candidates].map(([path, words]) => line(path, words.join(" "))).join("\n");
}

function bash(candidates: Candidates, program: string): string {
  return `# bash completion for ${program}
_${program}() {
  local path="" word
  for word in "\${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
    [[ $word == -* ]] || path="\${path:+$path }$word"
  done
  while :; do
    case "$path" in
${cases(candidates, (path, words) => `      "${path}") COMPREPLY=($(compgen -W "${words}" -- "\${COMP_WORDS[COMP_CWORD]}")); return ;;`)}
    esac
    [[ $path == *" "* ]] && path="\${path% *}" || path=""
  done
}
complete -o default -F _${program} ${program}
`;
}

function zsh(candidates: Candidates, program: string): string {
  return `#compdef ${program}
_${program}() {
  local path_="" word
  for word in "\${(@)words[2,CURRENT-1]}"; do
    [[ $word == -* ]] || path_="\${path_:+$path_ }$word"
  done
  while :; do
    case "$path_" in
${cases(candidates, (path, words) => `      "${path}") compadd -- ${words}; return ;;`)}
    esac
    [[ $path_ == *" "* ]] && path_="\${path_% *}" || path_=""
  done
}
compdef _${program} ${program}
`;
}

function fish(candidates: Candidates, program: string): string {
  return `# fish completion for ${program}
function __${program}_candidates
  set -l words (commandline -opc)[2..-1]
  set -l path (string match -v -- '-*' $words | string join ' ')
  while true
    switch "$path"
${cases(candidates, (path, words) => `      case "${path}"\n        printf '%s\\n' ${words}; return`)}
    end
    set path (string replace -r ' ?[^ ]*$' '' -- "$path")
  end
end
complete -c ${program} -f -a '(__${program}_candidates)'
`;
}

function powershell(candidates: Candidates, program: string): string {
  return `# PowerShell completion for ${program}
Register-ArgumentCompleter -Native -CommandName ${program} -ScriptBlock {
  param($wordToComplete, $commandAst, $cursorPosition)
  $candidates = @{
${cases(candidates, (path, words) => `    '${path}' = '${words}'`)}
  }
  $words = @($commandAst.CommandElements | Select-Object -Skip 1 | ForEach-Object { "$_" })
  if ($wordToComplete -and $words.Count -gt 0) { $words = @($words | Select-Object -SkipLast 1) }
  $path = ($words | Where-Object { -not $_.StartsWith('-') }) -join ' '
  while (-not $candidates.ContainsKey($path)) { $path = $path -replace ' ?[^ ]*$', '' }
  $candidates[$path] -split ' ' | Where-Object { $_ -like "$wordToComplete*" } |
    ForEach-Object { [System.Management.Automation.CompletionResult]::new($_, $_, 'ParameterValue', $_) }
}
`;
}
