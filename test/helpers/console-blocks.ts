/**
 * The command lines in a document: in its blocks of ```console, each behind `$ `, with what it prints below. There `…`
 * stands for any text, and alone on a line for any lines.
 */

/** What separates the commands' output: a control character that none prints. */
const MARK = '\x1e';

export interface Step {
  /** Of the document. */
  readonly line: number;
  /** The line before the block that it stands in. */
  readonly block: number;
  readonly command: string;
  /** What the document says that it prints. */
  readonly shown: readonly string[];
}

export interface Result {
  readonly output: string;
  /** Undefined where the shell did not come so far. */
  readonly status: number | undefined;
}

export function stepsOf(document: string): Step[] {
  const steps: { line: number; block: number; command: string; shown: string[] }[] = [];
  let block = 0;
  let inside = false;
  for (const [index, text] of document.split('\n').entries()) {
    if (/^```/.test(text)) {
      inside = text === '```console';
      block = index;
      continue;
    }
    if (!inside) continue;
    const last = steps.at(-1);
    if (text.startsWith('$ ')) {
      steps.push({ line: index + 1, block, command: text.slice(2), shown: [] });
    } else if (last !== undefined && last.shown.length === 0 && /\\$/.test(last.command)) {
      last.command += `\n${text}`;
    } else {
      last?.shown.push(text);
    }
  }
  return steps;
}

/** A script of bash that runs them one after the other, as typed, and in silence what is to come before each. */
export function scriptOf(steps: readonly Step[], before: (index: number) => string): string {
  const lines = steps.flatMap(({ command }, index) => [
    `{ :; ${before(index)}\n} > /dev/null 2>&1`,
    `printf '${MARK}'`,
    '(exit $status)',
    command,
    'status=$?',
    `printf '${MARK}%s${MARK}' $status`,
  ]);
  return ['exec 2>&1', 'status=0', ...lines, ''].join('\n');
}

/** What each command printed, from the script's output. */
export function resultsOf(steps: readonly Step[], output: string): Result[] {
  const parts = output.split(MARK);
  return steps.map((_, index) => {
    const status = parts[3 * index + 2];
    return {
      output: parts[3 * index + 1] ?? '',
      status: status === undefined ? undefined : Number(status),
    };
  });
}

/** What differs from what the document says; `lenient`: who shows nothing says nothing of it. */
export function problemsOf(steps: readonly Step[], results: readonly Result[], lenient = false) {
  return steps.flatMap(({ line, command, shown }, index) => {
    const { output, status } = results[index]!;
    const told = steps[index + 1]?.command === 'echo $?';
    const fits =
      (lenient && shown.length === 0) || patternOf(shown).test(output.replace(/\n+$/, '\n'));
    if (fits && (status === 0 || (told && status !== undefined))) return [];
    return [`line ${line}: ${command}\nended with ${status} and printed:\n${output}`];
  });
}

function patternOf(shown: readonly string[]): RegExp {
  const lines = shown.map((text) => {
    if (text === '…') return '(?:.*\n)*?';
    const parts = text.split('…').map((part) => part.replace(/[\\^$.*+?()[\]{}|]/g, '\\$&'));
    return `${parts.map((part) => part.replace(/ +/g, ' +')).join('.*')} *\n`;
  });
  return new RegExp(`^${lines.join('')}$`);
}
