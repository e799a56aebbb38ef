/** File names for snapshots: QEMU lets them be empty, alike, or hold any byte. */

const NAME_MAX = 255;
/** The longest that is put behind a snapshot's name. */
const LONGEST_SUFFIX = '.changed.json';

interface Named {
  readonly id: string;
  readonly name: string;
}

/**
 * One file name for each snapshot, without a suffix. `/`, `%`, a leading `.` and control characters
 * are percent-encoded; a name that is empty, not unique or too long becomes `NAME#ID`.
 */
export function snapshotFileNames(snapshots: readonly Named[]): string[] {
  const encoded = snapshots.map(({ name }) => encodeName(name));
  const count = new Map<string, number>();
  for (const name of encoded) count.set(name, (count.get(name) ?? 0) + 1);
  const keeps = (name: string) => name !== '' && count.get(name) === 1 && fits(name);
  // Who can keep its name does, wherever it stands in the table: `a#1` may be somebody's real name.
  const taken = new Set(encoded.filter(keeps));
  return snapshots.map(({ id }, index) => {
    const plain = encoded[index]!;
    if (keeps(plain)) return plain;
    const name = freeName(plain, encodeName(id), index, taken);
    taken.add(name);
    return name;
  });
}

/** `NAME#ID`, or with the place in the table where ids are alike or too long as well. */
function freeName(plain: string, id: string, index: number, taken: ReadonlySet<string>): string {
  let name = cut(plain, `#${id}`);
  for (let tail = `##${index}`; !fits(name) || taken.has(name); tail += '#') {
    name = cut(plain, tail);
  }
  return name;
}

export function encodeName(name: string): string {
  const encode = (char: string) =>
    `%${char.charCodeAt(0).toString(16).padStart(2, '0').toUpperCase()}`;
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
  return name.replace(/[/%\x00-\x1f\x7f]/g, encode).replace(/^\./, encode);
}

/**
 * The snapshot's name that a file name without its suffix stands for; null where `encodeName` never
 * makes it, or it is too long.
 */
export function decodeName(fileName: string): string | null {
  const decode = (_: string, digits: string) => String.fromCharCode(Number.parseInt(digits, 16));
  const name = fileName.replace(/%([0-9A-F]{2})/g, decode);
  return name !== '' && encodeName(name) === fileName && fits(fileName) ? name : null;
}

/** Whether every suffix still fits a file's name behind it. */
function fits(name: string): boolean {
  return Buffer.byteLength(name) <= NAME_MAX - LONGEST_SUFFIX.length;
}

/** `name` with `tail` behind it, cut in `name` so that it fits. */
function cut(name: string, tail: string): string {
  let room = NAME_MAX - LONGEST_SUFFIX.length - Buffer.byteLength(tail);
  let kept = '';
  for (const char of name) {
    room -= Buffer.byteLength(char);
    if (room < 0) break;
    kept += char;
  }
  return kept + tail;
}
