/** The text of `map`: what the ranges of a disk are, for people or as JSON; in qemu-img's words. */
import { ImageError } from '../errors.js';
import type { BlockStatus } from '../tools/block-status.js';
import { padRight } from './human.js';

const COLUMN = 16;

/** A line of JSON for each run, as one list. An empty disk has one run of no length. */
export function* jsonMap(runs: Iterable<BlockStatus>, start: number): Generator<string> {
  yield '[';
  let before = '';
  for (const run of runs) {
    yield before + jsonRun(run);
    before = ',\n';
  }
  if (before === '') yield jsonRun({ ...NO_RUN, start });
  yield ']\n';
}

const NO_RUN = { length: 0, depth: 0, present: false, zero: false, data: false, offset: null };

function jsonRun(run: Omit<BlockStatus, 'file' | 'compressed'>): string {
  const { start, length, depth, present, zero, data, offset } = run;
  const facts = `"depth": ${depth}, "present": ${present}, "zero": ${zero}, "data": ${data}`;
  const place = offset === null ? '' : `, "offset": ${offset}`;
  return `{ "start": ${start}, "length": ${length}, ${facts}${place}}`;
}

/** A table of what lies in files. Throws where something is not to be found in any as it is. */
export function* humanMap(runs: Iterable<BlockStatus>): Generator<string> {
  yield row('Offset', 'Length', 'Mapped to', 'File');
  for (const { start, length, zero, data, offset, file } of runs) {
    if (data && offset === null) {
      const message = 'File contains external, encrypted or compressed clusters.';
      throw new ImageError('unsupported', 'ENOTSUP', message);
    }
    if (data && !zero) yield row(hex(start), hex(length), hex(offset ?? 0), file ?? '');
  }
}

function row(offset: string, length: string, mappedTo: string, file: string): string {
  return `${[offset, length, mappedTo].map((text) => padRight(text, COLUMN)).join('')}${file}\n`;
}

/** As C's `%#x`: there is no 0x before a zero. */
function hex(value: number): string {
  return value === 0 ? '0' : `0x${value.toString(16)}`;
}
