/** The completion script of bash; it needs nothing of the package bash-completion. */
import type { Command } from '../command.js';
import type { Takes } from '../command-options.js';
import { MOUNT_OPTIONS } from '../options.js';
import { optionNames } from '../option-lines.js';
import { isWords, LIST_MOUNTS, MOUNT, mountWords, optionsOf } from './words.js';

export function bashCompletion(commands: readonly Command[]): string {
  return `${[
    '# bash completion of qcow2fs: source <(qcow2fs completion bash)',
    ...optionTable(commands),
    ...valueTable(commands),
    bodyOf(commands),
  ].join('\n')}\n`;
}

function optionTable(commands: readonly Command[]): string[] {
  const cases = commands.map((command) => {
    const words = optionsOf(command).flatMap((option) =>
      optionNames(option).map((name) => {
        return name.startsWith('--') && option.value === true ? `${name}=` : name;
      }),
    );
    return `    ${command.name}) echo '${[...words, '--help'].join(' ')}' ;;`;
  });
  return ['_qcow2fs_options() {', '  case $1 in', ...cases, '  esac', '}'];
}

/** For `COMMAND OPTION`, `mount,NAME` of mount options, and `COMMAND` for operands: what a value can be. */
function valueTable(commands: readonly Command[]): string[] {
  const lines: string[] = [];
  const line = (keys: readonly string[], takes: Takes | undefined) => {
    const patterns = keys.map((key) => `'${key}'`).join('|');
    lines.push(`    ${patterns}) echo '${isWords(takes) ? `words ${takes.join(' ')}` : takes}' ;;`);
  };
  for (const command of commands) {
    line([command.name], command.operands ?? 'file');
    for (const option of optionsOf(command)) {
      if (option.value === undefined) continue;
      const list = command.name === MOUNT && option.short === 'o';
      const keys = optionNames(option).filter(
        (name) => name.startsWith('--') || option.value === true,
      );
      const takes = list ? 'list' : (option.takes ?? 'any');
      line(
        keys.map((name) => `${command.name} ${name}`),
        takes as Takes,
      );
    }
  }
  for (const { name, takes } of MOUNT_OPTIONS) if (takes !== undefined) line([`,${name}`], takes);
  return ['_qcow2fs_takes() {', '  case $1 in', ...lines, '  esac', '}'];
}

function bodyOf(commands: readonly Command[]): string {
  return `_qcow2fs_offer() { # WHAT PREFIX: what a value can be that begins so
  local IFS=$'\\n' what=\${1%% *}
  case $what in
    words) IFS=$' \\n'; COMPREPLY=($(compgen -W "\${1#* }" -- "$2")) ;;
    file) compopt -o filenames; COMPREPLY=($(compgen -f -- "$2")) ;;
    folder) compopt -o filenames; COMPREPLY=($(compgen -d -- "$2")) ;;
    mount) compopt -o filenames
      COMPREPLY=($(compgen -W "$(${LIST_MOUNTS})" -- "$2") $(compgen -d -- "$2")) ;;
    list) _qcow2fs_list "$2" ;;
  esac
}

_qcow2fs_list() { # PREFIX: the mount options of -o, with commas between them
  local item=\${1##*,} before=
  [[ $1 == *,* ]] && before=\${1%,*},
  if [[ $item == *=* ]]; then
    _qcow2fs_offer "$(_qcow2fs_takes ",\${item%%=*}")" "\${item#*=}"
    return
  fi
  compopt -o nospace
  local IFS=$' \\n'
  COMPREPLY=($(compgen -P "$before" -W '${mountWords().join(' ')}' -- "$item"))
}

_qcow2fs() {
  local cur=\${COMP_WORDS[COMP_CWORD]} line=\${COMP_LINE:0:COMP_POINT}
  local full=\${line##* } command=\${COMP_WORDS[1]} what previous
  COMPREPLY=()
  [[ $cur == = || $cur == : ]] && cur=
  # The option before: words are cut at '=' and ':'.
  previous=\${line%"$full"}
  previous=\${previous%"\${previous##*[! ]}"}
  previous=\${previous##* }
  if ((COMP_CWORD == 1)) && [[ $cur != -* ]]; then
    compopt -o filenames
    COMPREPLY=($(compgen -W '${commands.map(({ name }) => name).join(' ')} help' -- "$cur"))
    local IFS=$'\\n'
    COMPREPLY+=($(compgen -f -- "$cur"))
    return
  fi
  [[ -n $(_qcow2fs_options "$command") ]] || command=${MOUNT}
  if [[ $full == --*=* ]]; then
    _qcow2fs_offer "$(_qcow2fs_takes "$command \${full%%=*}")" "\${full#*=}"
    return
  fi
  what=
  [[ $previous == -* && $previous != *=* ]] && what=$(_qcow2fs_takes "$command $previous")
  if [[ -n $what && $what != 'words json' ]]; then
    if [[ $what == list && $full == *=* ]]; then
      _qcow2fs_list "$full"
    else
      _qcow2fs_offer "$what" "$cur"
    fi
    return
  fi
  if [[ $full == -* ]]; then
    COMPREPLY=($(compgen -W "$(_qcow2fs_options "$command")" -- "$full"))
    [[ \${#COMPREPLY[@]} == 1 && \${COMPREPLY[0]} == *= ]] && compopt -o nospace
    return
  fi
  _qcow2fs_offer "$(_qcow2fs_takes "$command")" "$cur"
}

complete -F _qcow2fs qcow2fs`;
}
