/** The completion script of zsh. */
import type { Command } from '../command.js';
import type { CommandOption, Takes } from '../command-options.js';
import { MOUNT_OPTIONS } from '../options.js';
import { isWords, LIST_MOUNTS, MOUNT, optionsOf, quote } from './words.js';

export function zshCompletion(commands: readonly Command[]): string {
  return `${[
    '#compdef qcow2fs',
    '# zsh completion of qcow2fs: qcow2fs completion zsh > ~/.zfunc/_qcow2fs (in $fpath)',
    '_qcow2fs_mounts() {',
    '  local -a mounts',
    `  mounts=(\${(f)"$(${LIST_MOUNTS})"})`,
    '  compadd -f -a mounts',
    '  _files -/',
    '}',
    '_qcow2fs_list() {',
    `  _values -s , option ${mountValues().map(quote).join(' ')}`,
    '}',
    '_qcow2fs() {',
    '  local -a commands',
    `  commands=(${commands.map(({ name, summary }) => quote(`${name}:${summary}`)).join(' ')})`,
    '  if ((CURRENT == 2)) && [[ $words[2] != -* ]]; then',
    '    _describe command commands',
    '    _files',
    '    return',
    '  fi',
    '  local command=$words[2]',
    `  if ((\${commands[(I)\${command}:*]})); then`,
    '    shift words',
    '    ((CURRENT--))',
    '  else',
    `    command=${MOUNT}`,
    '  fi',
    '  case $command in',
    ...commands.map(commandCase),
    '  esac',
    '}',
    'if [[ $funcstack[1] == _qcow2fs ]]; then _qcow2fs "$@"; else compdef _qcow2fs qcow2fs; fi',
  ].join('\n')}\n`;
}

function commandCase(command: Command): string {
  const specs = optionsOf(command).flatMap(optionSpecs.bind(null, command.name));
  const operands = `*: :${actionOf(command.operands ?? 'file')}`;
  const all = [...specs, '(-)--help[this command in words]', operands].map(quote).join(' ');
  return `    ${command.name}) _arguments -s -S ${all} ;;`;
}

/** `*`: it may be given again. */
function optionSpecs(command: string, option: CommandOption): string[] {
  const { short, long, value, called = 'value', takes, help } = option;
  const list = command === MOUNT && short === 'o';
  const action = list ? '_qcow2fs_list' : actionOf(takes);
  const argument = value === undefined ? '' : `:${escapeSpec(called)}:${action}`;
  const described = `[${escapeSpec(help)}]`;
  const specs: string[] = [];
  // The letter of an option whose value can be left out takes none.
  if (short !== undefined) {
    specs.push(value === true ? `*-${short}+${described}${argument}` : `*-${short}${described}`);
  }
  if (long !== undefined) {
    const optional = value === 'optional' ? `=-${described}:${argument}` : '';
    const needed = value === true ? `=${described}${argument}` : described;
    specs.push(`*--${long}${optional === '' ? needed : optional}`);
  }
  return specs;
}

function mountValues(): string[] {
  return MOUNT_OPTIONS.map(({ name, value, optional, help, takes }) => {
    const described = `${name}[${escapeSpec(help)}]`;
    if (value === undefined) return described;
    return `${described}${optional === true ? '::' : ':'}${value}:${actionOf(takes)}`;
  });
}

function actionOf(takes: Takes | undefined): string {
  if (isWords(takes)) return takes.length === 0 ? ' ' : `(${takes.join(' ')})`;
  if (takes === 'mount') return '_qcow2fs_mounts';
  return takes === 'file' ? '_files' : takes === 'folder' ? '_files -/' : ' ';
}

function escapeSpec(text: string): string {
  return text.replace(/[[\]:\\]/g, '\\$&');
}
