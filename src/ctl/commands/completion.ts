/** `etcdctl completion`: scripts that let shells complete commands and flags. */
import type { CtlCommand } from "../ctl.ts";
import { badArgs } from "../exit.ts";

const SHELLS: Readonly<Record<string, (candidates: Candidates) => string>> = { bash, zsh, fish, powershell };

/** Possible next words after each sequence of commands: commands and flags. */
type Candidates = ReadonlyMap<string, readonly string[]>;

/** @param source returns the program, which contains this command. */
export function completion(source: { program(): CtlCommand }): CtlCommand {
  return {
    name: "completion",
    usage: "<bash|zsh|fish|powershell>",
    short: "Prints a completion script for a shell",
    long: `Prints a completion script for a shell. To have it in each session:

  bash        etcdctl completion bash > /etc/bash_completion.d/etcdctl
  zsh         etcdctl completion zsh > "\${fpath[1]}/_etcdctl"
  fish        etcdctl completion fish > ~/.config/fish/completions/etcdctl.fish
  powershell  etcdctl completion powershell | Out-String | Invoke-Expression`,
    run({ args, io }) {
      const [shell, ...more] = args;
      const script = more.length === 0 && shell !== undefined ? SHELLS[shell] : undefined;
      if (script === undefined) throw badArgs("completion takes one shell: bash, zsh, fish or powershell");
      io.out(script(candidatesOf(source.program())));
    },
  };
}

function candidatesOf(program: CtlCommand): Candidates {
  const candidates = new Map<string, readonly string[]>();
  const shared = (program.sharedFlags ?? []).map(({ name }) => `--${name}`);
  const visit = (command: CtlCommand, path: readonly string[], above: readonly string[]) => {
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

function bash(candidates: Candidates): string {
  return `# bash completion for etcdctl
_etcdctl() {
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
complete -o default -F _etcdctl etcdctl
`;
}

function zsh(candidates: Candidates): string {
  return `#compdef etcdctl
_etcdctl() {
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
compdef _etcdctl etcdctl
`;
}

function fish(candidates: Candidates): string {
  return `# fish completion for etcdctl
function __etcdctl_candidates
  set -l words (commandline -opc)[2..-1]
  set -l path (string match -v -- '-*' $words | string join ' ')
  while true
    switch "$path"
${cases(candidates, (path, words) => `      case "${path}"\n        printf '%s\\n' ${words}; return`)}
    end
    set path (string replace -r ' ?[^ ]*$' '' -- "$path")
  end
end
complete -c etcdctl -f -a '(__etcdctl_candidates)'
`;
}

function powershell(candidates: Candidates): string {
  return `# PowerShell completion for etcdctl
Register-ArgumentCompleter -Native -CommandName etcdctl -ScriptBlock {
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
