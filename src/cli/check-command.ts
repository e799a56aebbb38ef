/** `qcow2fs check`: an image's consistency, in qemu-img's words. */
import { ERRNO, ImageError, isExpected } from '../errors.js';
import type { ImageDescription } from '../image/description.js';
import type { CheckResult, Fix, FormatFinding } from '../image/check-result.js';
import { hasStaleBitmaps } from '../image/qcow2/bitmaps.js';
import type { Finding } from '../image/qcow2/check-findings.js';
import { strerror } from '../sys/libc.js';
import { printableLines } from '../sys/log.js';
import { checkSteps } from '../tools/check.js';
import { advancing } from '../tools/progress.js';
import { OPTIONS } from './command-options.js';
import { commandProgress } from './command-progress.js';
import { findingText, humanResult, jsonResult, repairedText } from './check-words.js';
import { getopt } from './getopt.js';
import { imageSpec, outputFormat, sourceCacheOption } from './image-options.js';
import { warnOfStaleBitmaps } from './open-told.js';
import type { Outcome } from './outcome.js';
import { warnOfProbing } from './probing.js';
import { problemText, reportError, UsageError } from './program.js';

/** Exit codes. */
const STATUS = { OK: 0, FAILED: 1, CORRUPT: 2, LEAKS: 3, UNSUPPORTED: 63 } as const;
/** Bytes of findings that are written at once. */
const LINES_SIZE = 1 << 16;

export async function runCheckCommand(words: string[]): Promise<Outcome> {
  const args = getopt(words, OPTIONS.check);
  const fixes = args.all('repair').map(fixOf);
  const output = outputFormat(args);
  const [word, ...more] = args.operands;
  if (word === undefined || more.length > 0) throw new UsageError('Expecting one image file name');
  // Any is as good as another here.
  sourceCacheOption(args);
  const spec = imageSpec(word, args, { format: args.last('format') });
  const print = (text: string) => {
    if (!args.has('q')) process.stdout.write(text);
  };
  const findings = new FindingLines();
  const progress = commandProgress(args, args.has('q'));
  let result: CheckResult;
  let format = 'qcow2';
  try {
    const steps = checkSteps(spec, {
      fix: fixes.at(-1) ?? 'none',
      opened: (description) => {
        format = description.layers[0].format;
        warnOfProbing({ description });
        warnOfBitmaps(description);
      },
      report: (finding) => findings.add(finding),
      repaired: (first) => {
        findings.flush();
        if (output === 'human') print(repairedText(first));
      },
    });
    result = await advancing(steps, progress);
    await progress.advance(1);
  } catch (error) {
    findings.flush();
    return failed(error);
  } finally {
    progress.finish();
  }
  findings.flush();
  print(output === 'human' ? humanResult(result) : jsonResult(result, spec.filename, format));
  return { status: statusOf(result) };
}

function fixOf(word: string): Fix {
  if (word === 'leaks' || word === 'all') return word;
  throw new UsageError(`Unknown option value for -r (expecting 'leaks' or 'all'): ${word}`);
}

function statusOf({ checkErrors, corruptions, leaks }: CheckResult): number {
  if (checkErrors > 0) {
    reportError('Check failed');
    return STATUS.FAILED;
  }
  if (corruptions > 0) return STATUS.CORRUPT;
  return leaks > 0 ? STATUS.LEAKS : STATUS.OK;
}

function warnOfBitmaps({ layers: [top] }: ImageDescription): void {
  if (top.format !== 'qcow2' || !hasStaleBitmaps(top.header)) return;
  warnOfStaleBitmaps([top.header.version]);
}

/** Errors of opening stand for themselves; a check that came to no end says so. */
function failed(error: unknown): Outcome {
  if (!isExpected(error)) throw error;
  if (!(error instanceof ImageError)) {
    reportError(`Check failed: ${problemText(error)}`);
    return { status: STATUS.FAILED };
  }
  if (error.code === 'ENOTSUP' && error.context.operation === 'check') {
    reportError(error.message);
    return { status: STATUS.UNSUPPORTED };
  }
  if (error.context.operation !== 'check') throw error;
  const words = strerror(ERRNO[error.code]);
  if (error.message !== words) {
    const { hint } = error.context;
    reportError(error.message);
    if (hint !== undefined) process.stderr.write(`${hint}\n`);
  }
  reportError(`Check failed: ${words}`);
  return { status: STATUS.FAILED };
}

/** Lines on standard error, many at once. What images can put into them cannot steer a terminal. */
class FindingLines {
  #lines = '';
  #toldUnreadable = false;

  add(finding: Finding | FormatFinding): void {
    if (finding.kind === 'block-unreadable') {
      // QEMU tells of the first.
      if (this.#toldUnreadable) return;
      this.#toldUnreadable = true;
    }
    this.#lines += `${printableLines(findingText(finding))}\n`;
    if (this.#lines.length > LINES_SIZE) this.flush();
  }

  flush(): void {
    if (this.#lines !== '') process.stderr.write(this.#lines);
    this.#lines = '';
  }
}
