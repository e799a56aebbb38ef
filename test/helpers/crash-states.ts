/**
 * What a power failure can leave of a file. All that was done before the last flush is there. Of
 * what was done since, each sector has any of the contents that it went through, a cut or a growth
 * happened or not, and the file's size is any between.
 */
import type { Note } from './disk-history.js';
import type { Random } from './random.js';
import type { Operation, Recording } from './recording-storage.js';

const SECTOR_SIZE = 512;

export interface CrashState {
  /** Operations, notes included, that had begun. */
  readonly at: number;
  /** Which of the operations since the last flush are there. */
  readonly description: string;
  readonly bytes: Uint8Array;
  /** What is left of the image's data file, where it has one. */
  readonly data?: Uint8Array;
  /** The notes of the recording up to then. */
  readonly notes: readonly Note[];
}

/** A part of one operation that reaches the disk whole or not at all. */
interface Piece {
  /** Index of the operation. */
  readonly operation: number;
  /** The sector of the file; -1: its size. */
  readonly sector: number;
  /** Within the file; for a size, the size. */
  readonly position: number;
  /** Null: zeroes, `length` of them. */
  readonly bytes: Uint8Array | null;
  readonly length: number;
}

/** The operations between two flushes. */
interface Epoch {
  readonly start: number;
  /** Index of the flush, or the end. */
  readonly end: number;
  readonly pieces: readonly Piece[];
  readonly writers: readonly number[];
}

/**
 * Samples states, in the order of the recording. The number is a wish: no state comes twice. `focus`:
 * only states in which one of these operations is between two flushes.
 */
export function* crashStates(
  recording: Recording,
  wanted: number,
  random: Random,
  focus: ReadonlySet<Operation> | null = null,
): Generator<CrashState> {
  const { operations } = recording;
  const epochs = epochsOf(operations);
  const weightOf = ({ writers }: Epoch): number => {
    const chosen = focus === null || writers.some((index) => focus.has(operations[index]!));
    return chosen && writers.length > 0 ? 1 + writers.length : 0;
  };
  const weight = epochs.reduce((sum, epoch) => sum + weightOf(epoch), 0);
  let base: Uint8Array = recording.initial;
  let owed = 0;
  for (const epoch of epochs) {
    owed += (wanted * weightOf(epoch)) / weight;
    const seen = new Set<string>();
    // An epoch of few operations has few states: what it cannot use, the next ones get.
    const weighs = weightOf(epoch) > 0;
    for (let tries = Math.ceil(2 * owed); weighs && owed >= 1 && tries > 0; tries--) {
      const choice = choose(epoch, random);
      const key = `${choice.at} ${choice.size} ${[...choice.last].join(' ')}`;
      if (seen.has(key)) continue;
      seen.add(key);
      owed--;
      yield {
        at: choice.at,
        description: describe(epoch, operations, choice),
        bytes: apply(base, epoch.pieces, choice),
        notes: notesBefore(operations, choice.at),
      };
    }
    base = apply(base, epoch.pieces, everything(epoch));
  }
}

/** One state of the file when the first `begun` operations had begun. */
export function stateAt(recording: Recording, begun: number, random: Random): Uint8Array {
  const epochs = epochsOf(recording.operations.slice(0, begun));
  const last = epochs.pop()!;
  const whole = epochs.reduce(
    (bytes, epoch) => apply(bytes, epoch.pieces, everything(epoch)),
    recording.initial,
  );
  const some = random.pick([0, 0.1, 0.5, 0.9, 1]);
  const chosen = last.pieces.filter(() => random.chance(some));
  return apply(whole, last.pieces, choiceOf(chosen, 'some', last.end, 'natural'));
}

function epochsOf(operations: readonly Operation[]): Epoch[] {
  const epochs: Epoch[] = [];
  let start = 0;
  for (let at = 0; at <= operations.length; at++) {
    if (at < operations.length && operations[at]!.kind !== 'flush') continue;
    const pieces: Piece[] = [];
    for (let n = start; n < at; n++) split(operations[n]!, n, pieces);
    const writers = [...new Set(pieces.map(({ operation }) => operation))];
    epochs.push({ start, end: at, pieces, writers });
    start = at + 1;
  }
  return epochs;
}

function split(operation: Operation, index: number, pieces: Piece[]): void {
  if (operation.kind === 'truncate') {
    const { size } = operation;
    pieces.push({ operation: index, sector: -1, position: size, bytes: null, length: 0 });
    return;
  }
  if (operation.kind !== 'write' && operation.kind !== 'punch') return;
  const bytes = operation.kind === 'write' ? operation.bytes : null;
  const end = operation.position + (bytes === null ? lengthOf(operation) : bytes.length);
  for (let at = operation.position; at < end; ) {
    const sector = Math.floor(at / SECTOR_SIZE);
    const length = Math.min(end, (sector + 1) * SECTOR_SIZE) - at;
    const from = at - operation.position;
    pieces.push({
      operation: index,
      sector,
      position: at,
      bytes: bytes?.subarray(from, from + length) ?? null,
      length,
    });
    at += length;
  }
}

function lengthOf(operation: Operation): number {
  return operation.kind === 'punch' ? operation.length : 0;
}

/** What got through. */
interface Choice {
  readonly at: number;
  readonly how: string;
  /** By sector (-1: sizes), the last operation that got there; it took the earlier ones along. */
  readonly last: ReadonlyMap<number, number>;
  /** Whether the file has the size of all that was done, or only that of what is there. */
  readonly size: 'full' | 'natural';
}

function everything(epoch: Epoch): Choice {
  return choiceOf(epoch.pieces, 'all', epoch.end, 'full');
}

function choiceOf(pieces: readonly Piece[], how: string, at: number, size: Choice['size']): Choice {
  const last = new Map<number, number>();
  for (const { sector, operation } of pieces) last.set(sector, operation);
  return { at, how, last, size };
}

/**
 * Some states are likelier to show a missing order than others: those with one thing there or missing.
 */
function choose(epoch: Epoch, random: Random): Choice {
  const { pieces, writers, start, end } = epoch;
  const operation = random.pick(writers);
  const piece = random.pick(pieces);
  const some = random.pick([0.1, 0.5, 0.9]);
  const ways: [string, (candidate: Piece) => boolean][] = [
    ['up to', (candidate) => candidate.operation <= operation],
    [
      'up to, less one sector',
      (candidate) => candidate.operation <= operation && candidate !== piece,
    ],
    ['from', (candidate) => candidate.operation >= operation],
    ['only', (candidate) => candidate.operation === operation],
    ['all but', (candidate) => candidate.operation !== operation],
    ['only one sector', (candidate) => candidate === piece],
    ['all but one sector', (candidate) => candidate !== piece],
    [`each by ${some}`, () => random.chance(some)],
    [
      `each by ${some} up to`,
      (candidate) => candidate.operation <= operation && random.chance(some),
    ],
    ['nothing', () => false],
  ];
  const [how, there] = random.pick(ways);
  const chosen = pieces.filter(there);
  const least = Math.max(start, ...chosen.slice(-1).map((last) => last.operation + 1));
  // The moment decides what is acknowledged: the earliest that fits, the latest, or any.
  const at = random.pick([least, end, least + random.below(end - least + 1)]);
  const size = random.chance(0.5) ? 'full' : 'natural';
  return choiceOf(chosen, `${how} ${operation}`, at, size);
}

function apply(base: Uint8Array, pieces: readonly Piece[], choice: Choice): Uint8Array {
  let size = base.length;
  let full = base.length;
  let room = base.length;
  for (const piece of pieces) {
    if (piece.operation >= choice.at) break;
    full = piece.sector < 0 ? piece.position : Math.max(full, grownTo(piece));
    room = Math.max(room, full);
  }
  const bytes = new Uint8Array(room);
  bytes.set(base);
  for (const piece of pieces) {
    if (piece.operation > (choice.last.get(piece.sector) ?? -1)) continue;
    if (piece.sector < 0) {
      size = piece.position;
      bytes.fill(0, size);
      continue;
    }
    size = Math.max(size, grownTo(piece));
    if (piece.bytes === null) bytes.fill(0, piece.position, piece.position + piece.length);
    else bytes.set(piece.bytes, piece.position);
  }
  return bytes.subarray(0, choice.size === 'full' ? Math.max(size, full) : size);
}

/** Punching does not make a file longer. */
function grownTo({ bytes, position, length }: Piece): number {
  return bytes === null ? 0 : position + length;
}

function* writtenIn(epoch: Epoch, choice: Choice): Generator<number> {
  const there = new Set(choice.last.values());
  for (const writer of epoch.writers) if (there.has(writer)) yield writer;
}

function describe(epoch: Epoch, operations: readonly Operation[], choice: Choice): string {
  const words = [...writtenIn(epoch, choice)].slice(0, 12).map((index) => {
    return `${index}:${describeOperation(operations[index]!)}`;
  });
  const { start, end } = epoch;
  return (
    `at ${choice.at} in [${start}, ${end}), ${choice.how}, ${choice.size} size; ` +
    `last there: ${words.join(' ') || 'none'}`
  );
}

export function describeOperation(operation: Operation): string {
  const hex = (value: number) => `0x${value.toString(16)}`;
  switch (operation.kind) {
    case 'write':
      return `write(${hex(operation.position)}+${hex(operation.bytes.length)})`;
    case 'punch':
      return `punch(${hex(operation.position)}+${hex(operation.length)})`;
    case 'truncate':
      return `truncate(${hex(operation.size)})`;
    case 'flush':
      return 'flush';
    case 'note':
      return operation.note.kind === 'change' ? `(${operation.note.label})` : '(acknowledged)';
  }
}

export function notesBefore(operations: readonly Operation[], at: number): Note[] {
  const notes: Note[] = [];
  for (let n = 0; n < at; n++) {
    const operation = operations[n]!;
    if (operation.kind === 'note') notes.push(operation.note);
  }
  return notes;
}
